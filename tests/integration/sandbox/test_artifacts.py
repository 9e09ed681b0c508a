"""Pinned downloads from a server of the test's own."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from metalmark.model import DigestMismatch, StableError, TransientError
from metalmark.sandbox import DriverSettings
from metalmark.sandbox.artifacts import FIRECRACKER_VERSION, KERNEL_VERSION, PinnedFirecracker, PinnedKernel
from metalmark.system import folders

pytestmark = pytest.mark.anyio
PROGRAM = b"#!/bin/sh\necho Firecracker v1.15.1\n"


def release(member: str) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        info = tarfile.TarInfo(member)
        info.size = len(PROGRAM)
        tar.addfile(info, io.BytesIO(PROGRAM))
    return archive.getvalue()


NAME = f"release-{FIRECRACKER_VERSION}-x86_64/firecracker-{FIRECRACKER_VERSION}-x86_64"
ARCHIVE = release(NAME)
KERNEL = b"\x7fELF" + os.urandom(1000)


class Site(BaseHTTPRequestHandler):
    """Serves the two files, redirects one, and breaks a third off."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class has it so
        del format, args

    def do_GET(self) -> None:
        if self.path.endswith(".tgz") and "/other/" not in self.path:
            self.send_response(302)
            self.send_header("Location", f"/other{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        status, body = 404, b"no such file"
        if self.path.endswith(".tgz"):
            status, body = 200, ARCHIVE
        elif self.path.endswith(f"x86_64/vmlinux-{KERNEL_VERSION}"):
            status, body = 200, KERNEL
        if self.path.startswith("/broken"):
            status = 503
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) + (100 if self.path.startswith("/cut") else 0)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def site() -> Iterator[str]:
    """A web server on the loopback."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def settings(tmp_path: Path) -> DriverSettings:
    """An installation of this test's own."""
    return DriverSettings(folders=folders({"METALMARK_HOME": str(tmp_path / "home")}), machine="x86_64")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def test_release_is_fetched_checked_and_installed(settings: DriverSettings, site: str, tmp_path: Path) -> None:
    pinned = PinnedFirecracker(settings, site=site, sha256=sha256(ARCHIVE))
    assert pinned.installed() is None
    archive = await pinned.fetch(tmp_path / "down")
    program = await pinned.install(archive)
    assert program.read_bytes() == PROGRAM
    assert os.access(program, os.X_OK)
    assert pinned.installed() == program
    assert await pinned.fetch(tmp_path / "down") == archive


async def test_other_content_is_refused_and_nothing_stays(settings: DriverSettings, site: str, tmp_path: Path) -> None:
    pinned = PinnedFirecracker(settings, site=site)
    with pytest.raises(DigestMismatch, match=sha256(ARCHIVE)):
        await pinned.fetch(tmp_path / "down")
    assert [path.name for path in (tmp_path / "down").iterdir()] == ["format-version"]
    wrong = tmp_path / "wrong.tgz"
    wrong.write_bytes(ARCHIVE)
    with pytest.raises(DigestMismatch):
        await pinned.install(wrong)
    assert pinned.installed() is None


async def test_archive_without_the_program_installs_nothing(settings: DriverSettings, tmp_path: Path) -> None:
    other = release("release/README")
    archive = tmp_path / "other.tgz"
    archive.write_bytes(other)
    pinned = PinnedFirecracker(settings, sha256=sha256(other))
    with pytest.raises(StableError, match="holds no"):
        await pinned.install(archive)
    assert pinned.installed() is None


async def test_kernel_is_installed_apart_from_the_distributions(
    settings: DriverSettings, site: str, tmp_path: Path
) -> None:
    pinned = PinnedKernel(settings, site=site, sha256=sha256(KERNEL))
    kernel = await pinned.install(await pinned.fetch(tmp_path / "down"))
    assert kernel.image.read_bytes() == KERNEL
    assert kernel.select(("virtio_blk", "vmw_vsock_virtio_transport")) == ()
    assert pinned.installed() == kernel
    assert not (settings.folders.state / "kernels").exists()


@pytest.mark.parametrize(
    ("path", "kind"), [("/nowhere", StableError), ("/broken", TransientError), ("/cut", TransientError)]
)
async def test_site_that_fails(
    settings: DriverSettings, site: str, tmp_path: Path, path: str, kind: type[Exception]
) -> None:
    settings_of = {"/nowhere": "aarch64"}
    from dataclasses import replace

    chosen = replace(settings, machine=settings_of.get(path, "x86_64"))
    with pytest.raises(kind):
        await PinnedKernel(chosen, site=site + path, sha256=sha256(KERNEL)).fetch(tmp_path / "down")
    assert not list((tmp_path / "down").glob("*vmlinux*"))


async def test_site_out_of_reach_names_the_way_without_network(settings: DriverSettings, tmp_path: Path) -> None:
    with pytest.raises(TransientError) as found:
        await PinnedKernel(settings, site="http://127.0.0.1:9").fetch(tmp_path / "down")
    assert "--download" in found.value.hint
