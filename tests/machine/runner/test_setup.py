"""``host setup`` for real, in a freshly debootstrapped Debian."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.machine.ordinary_user import let_everybody_in
from tests.machine.runner.fresh_debian import FreshDebian, make_fresh_debian

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="entering another root folder needs root"),
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FreshDebian]:
    folder = tmp_path_factory.mktemp("debian")
    let_everybody_in(folder)
    yield make_fresh_debian(folder)
    shutil.rmtree(folder, ignore_errors=True)


def test_from_nothing_through_a_folder_without_a_network_to_nothing_left_to_do(debian: FreshDebian) -> None:
    before = debian.installed()
    assert "qemu-system-x86" not in before
    assert debian.doctor()["qemu"]["status"] == "missing"
    assert debian.doctor()["squashfs-tools"]["fix"] == "apt-get install --no-install-recommends squashfs-tools"

    asked = debian.metalmark("host", "setup")
    assert asked.returncode == 1
    assert "use --yes" in asked.stderr
    assert debian.installed() == before

    # Collecting needs no root.
    assert debian.run("apt-get", "-q", "update").returncode == 0
    collected = debian.metalmark(
        "host", "setup", "--download", "/home/ada/bundle", "--without", "firecracker", user=1000
    )
    assert collected.returncode == 0, collected.stderr
    manifest = collected.stderr.split("SHA-256 of its manifest: ")[1].split()[0]
    bundle = debian.root / "home/ada/bundle"
    assert not list(bundle.glob("*/partial"))

    _refuses_what_was_tampered_with(debian, bundle, before)

    installed = debian.metalmark(
        "host", "setup", "--from", "/home/ada/bundle", "--manifest-sha256", manifest, "--yes", network=False
    )
    assert installed.returncode == 0, installed.stdout + installed.stderr
    after = debian.installed()
    assert {"qemu-system-x86", "squashfs-tools", "runc", "passt"} <= after
    assert not any(name.startswith("linux-image") for name in after)
    assert not list((debian.root / "boot").glob("vmlinuz*"))
    kernels = list((debian.root / "metalmark/state/kernels").glob("*/kernel.json"))
    assert len(kernels) == 1

    again = debian.metalmark("host", "setup", "--from", "/home/ada/bundle", "--yes", network=False)
    assert again.returncode == 0
    assert "nothing to do" in again.stderr
    lines = debian.doctor()
    assert {lines[name]["status"] for name in ("qemu", "squashfs-tools", "guest-kernel", "container-runtime")} == {"ok"}

    # What is missing later is installed with the network, and only that.
    assert debian.run("apt-get", "-q", "remove", "--yes", "squashfs-tools").returncode == 0
    planned = debian.metalmark("host", "setup", "--dry-run")
    assert "install squashfs-tools with apt-get" in planned.stderr
    assert "squashfs-tools" not in debian.installed()
    mended = debian.metalmark("host", "setup", "--yes")
    assert mended.returncode == 0, mended.stderr
    assert debian.installed() == after


EXCHANGED = """
import anyio, os, pathlib, sys
from metalmark.model import MetalmarkError
from metalmark.runner.apt import Apt, PackageFile, local_repository

async def main():
    path = pathlib.Path(sys.argv[1])
    file = PackageFile(path=path, size_bytes=path.stat().st_size, sha256="0" * 64)
    async with local_repository(Apt(os.environ), [file]) as apt:
        try:
            await apt.install(["runc"])
        except MetalmarkError as error:
            print(error)

anyio.run(main)
"""
"""Installs a package from an index that has another digest for it."""


def _refuses_what_was_tampered_with(debian: FreshDebian, bundle: Path, before: set[str]) -> None:
    package = next((bundle / "packages").glob("runc_*.deb"))
    whole = package.read_bytes()
    package.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused = debian.metalmark("host", "setup", "--from", "/home/ada/bundle", "--yes", network=False)
    assert refused.returncode == 1
    assert "runc_" in refused.stderr
    assert "nothing of it was installed" in refused.stderr
    package.write_bytes(whole)
    other = debian.metalmark(
        "host", "setup", "--from", "/home/ada/bundle", "--manifest-sha256", "0" * 64, "--yes", network=False
    )
    assert other.returncode == 1
    exchanged = debian.run("python3", "-c", EXCHANGED, f"/home/ada/bundle/packages/{package.name}", network=False)
    assert "apt-get install runc failed" in exchanged.stdout, exchanged.stderr
    assert debian.installed() == before


def test_an_ordinary_user_gets_the_kernel_and_is_told_the_rest(debian: FreshDebian) -> None:
    assert debian.run("apt-get", "-q", "remove", "--yes", "runc").returncode == 0
    done = debian.metalmark("host", "setup", "--yes", user=1000)
    assert done.returncode == 1, "the package is left to root"
    assert "sudo apt-get install --no-install-recommends runc" in done.stderr
    assert len(list((debian.root / "home/ada/mm/state/kernels").glob("*/kernel.json"))) == 1
    again = debian.metalmark("host", "setup", "--yes", user=1000)
    assert "already there: guest kernel" in again.stderr
