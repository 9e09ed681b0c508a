"""What QEMU says of itself."""

from __future__ import annotations

import pytest

from metalmark.model import ToolMissing
from metalmark.sandbox.qemu_installation import find_qemu, read_installation
from metalmark.system import Completed

VERSION = b"QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\n"
MACHINES = b"Supported machines are:\nmicrovm              microvm (i386)\npc                   Standard PC\n"


def said(stdout: bytes, returncode: int = 0) -> Completed:
    return Completed(argv=("qemu",), returncode=returncode, stdout=stdout, stderr=b"broken\n" if returncode else b"")


def test_version_and_machine_type() -> None:
    found = read_installation("/q", "x86_64", version=said(VERSION), machines=said(MACHINES), seccomp=True)
    assert (found.version, found.machine_type, found.seccomp) == ("7.2.22", "microvm", True)


def test_binary_without_the_machine_type_is_refused() -> None:
    with pytest.raises(ToolMissing, match="no machine type virt"):
        read_installation("/q", "aarch64", version=said(VERSION), machines=said(MACHINES), seccomp=True)


def test_broken_binary_is_refused_with_its_words() -> None:
    with pytest.raises(ToolMissing, match="broken"):
        read_installation("/q", "x86_64", version=said(b"", 127), machines=said(MACHINES), seccomp=False)


@pytest.mark.anyio
async def test_missing_binary_names_the_package() -> None:
    with pytest.raises(ToolMissing) as found:
        await find_qemu("aarch64", path="/nonexistent")
    assert "qemu-system-arm" in found.value.hint
    with pytest.raises(ToolMissing, match="riscv64"):
        await find_qemu("riscv64")
