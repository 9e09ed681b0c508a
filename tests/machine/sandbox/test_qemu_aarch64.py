"""A guest for aarch64, emulated: Debian's arm64 kernel and the agent built for it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tests.machine.sandbox.vm_boxes import made

from metalmark.model import ToolMissing
from metalmark.sandbox import DriverSettings, unpack_kernel_package
from metalmark.sandbox.qemu import QemuDriver
from metalmark.system import folders, run
from metalmark.wire import Exec

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[3]
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MIRROR = "http://deb.debian.org/debian"


async def fetch_arm64_kernel(folder: Path) -> Path:
    """Fetch Debian's kernel package for arm64 with apt settings of our own, once."""
    folder.mkdir(parents=True, exist_ok=True)
    if found := sorted(folder.glob("linux-image-*-cloud-arm64_*.deb")):
        return found[-1]
    if shutil.which("apt-get") is None or not KEYRING.exists():
        pytest.skip("needs apt and Debian's keyring, to fetch a kernel for arm64")
    private = folder / "apt"
    for name in ("state/lists/partial", "cache/archives/partial"):
        (private / name).mkdir(parents=True, exist_ok=True)
    (private / "status").touch()
    (private / "sources.list").write_text(f"deb [signed-by={KEYRING}] {MIRROR} bookworm main\n", encoding="ascii")
    options = {
        "Dir::State": private / "state", "Dir::State::status": private / "status", "Dir::Cache": private / "cache",
        "Dir::Etc::sourcelist": private / "sources.list", "Dir::Etc::sourceparts": "/dev/null",
        "APT::Architecture": "arm64", "APT::Architectures::": "arm64", "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
    }  # fmt: skip
    words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    updated = await run(["apt-get", *words, "update"], timeout_s=120)
    if updated.returncode != 0:
        pytest.skip(f"Debian's mirror is out of reach: {updated.error_text}")
    depends = await run(["apt-cache", *words, "depends", "linux-image-cloud-arm64"], timeout_s=30)
    package = depends.stdout.decode().split("Depends: ")[1].split()[0]
    fetched = await run(["apt-get", *words, "download", package], timeout_s=120, cwd=folder)
    if fetched.returncode != 0:
        pytest.skip(f"Debian's mirror is out of reach: {fetched.error_text}")
    return max(folder.glob("linux-image-*-cloud-arm64_*.deb"))


async def build_programs(folder: Path) -> Path:
    """Build the agent and the self-test's program for aarch64."""
    if shutil.which("aarch64-linux-gnu-gcc") is None:
        pytest.skip("no C compiler for aarch64 (apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross)")
    words = ["MACHINE=aarch64", "CC=aarch64-linux-gnu-gcc", f"OUT={folder}/out", f"BUILD={folder}/build"]
    built = await run(["make", "-C", str(ROOT / "guest"), *words], timeout_s=120)
    assert built.returncode == 0, built.error_text
    return folder / "out"


@pytest.mark.timeout(300)
async def test_aarch64_guest_boots_and_runs_a_command(metalmark_home: Path, tmp_path: Path) -> None:
    for tool in ("qemu-system-aarch64", "mksquashfs"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    programs = await build_programs(tmp_path)
    package = await fetch_arm64_kernel(ROOT / ".cache/kernel-packages/arm64")
    kernel = await unpack_kernel_package(package, metalmark_home / "state/kernels")
    assert kernel.machine == "aarch64"
    tree = tmp_path / "tree"
    for name in ("bin", "etc", "tmp", "proc", "sys", "dev"):
        (tree / name).mkdir(parents=True)
    shutil.copy(programs / "metalmark-selftest-aarch64", tree / "bin/sh")
    squashed = await run(["mksquashfs", str(tree), str(tmp_path / "root.sqfs"), "-quiet", "-no-progress"], timeout_s=60)
    assert squashed.returncode == 0, squashed.error_text
    settings = DriverSettings(
        folders=folders({"METALMARK_HOME": str(metalmark_home)}),
        machine="aarch64",
        agent=programs / "metalmark-agent-aarch64",
    )
    if os.uname().machine == "aarch64":
        pytest.skip("this is an aarch64 machine: the other tests boot such guests")
    out = bytearray()
    async with made(QemuDriver(settings), root=tmp_path / "root.sqfs") as one:
        await one.box.start()
        assert one.box.hello.architecture == "aarch64"
        request = Exec(argv=("/bin/sh", "-c", "echo from another architecture"), stream_bytes=1000)
        command = await one.box.exec(request, lambda stream, data: out.extend(data))
        assert (await command.wait()).code == 0
    assert out == b"from another architecture\n"


async def test_machine_without_a_packaged_agent_is_told(metalmark_home: Path, tmp_path: Path) -> None:
    settings = DriverSettings(folders=folders({"METALMARK_HOME": str(metalmark_home)}), machine="riscv64")
    found = await QemuDriver(settings).probe()
    assert not found.usable
    assert "riscv64" in found.reason
    with pytest.raises(ToolMissing):
        await QemuDriver(settings).installation()
