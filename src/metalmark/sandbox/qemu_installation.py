"""The QEMU that is installed: where, which version, and what it can do."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from metalmark.model import ToolMissing
from metalmark.sandbox.qemu_command import SECCOMP
from metalmark.system import Completed, ensure_private, find_tool, in_thread, published, run

_LIMIT_S: Final = 20.0
_MACHINES: Final = {"x86_64": "microvm", "aarch64": "virt"}
_PACKAGES: Final = {"x86_64": "qemu-system-x86", "aarch64": "qemu-system-arm"}


@dataclass(frozen=True, kw_only=True)
class QemuInstallation:
    """One QEMU binary."""

    binary: str
    version: str
    machine_type: str
    seccomp: bool
    """Whether it takes our system call filter."""


async def find_qemu(machine: str, *, cache: Path | None = None, path: str | None = None) -> QemuInstallation:
    """Find and examine the QEMU for a machine.

    Args:
        machine: Architecture of the guest, as ``uname -m`` has it.
        cache: Folder in which the answer is kept until the binary changes; None: it is asked each time.
        path: Search path; None: PATH.

    Raises:
        ToolMissing: It is not installed, is broken, or lacks the machine type.
        PhaseTimeout: It does not answer.
    """
    if machine not in _MACHINES:
        raise ToolMissing(f"there is no QEMU machine type for {machine}", why="known are x86_64 and aarch64")
    hint = f"apt-get install {_PACKAGES[machine]}, or `metalmark host setup`"
    binary = find_tool(f"qemu-system-{machine}", hint=hint, path=path)
    if cache is None:
        return await _examine(binary, machine)
    kept = cache / f"qemu-{machine}.json"
    status = await in_thread(Path(binary).stat)
    key = [binary, status.st_size, status.st_mtime_ns]
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(await in_thread(kept.read_bytes))
        if found["key"] == key:
            return QemuInstallation(**found["installation"])
    installation = await _examine(binary, machine)
    with suppress(OSError):
        await in_thread(_keep, kept, json.dumps({"key": key, "installation": asdict(installation)}))
    return installation


async def _examine(binary: str, machine: str) -> QemuInstallation:
    # "-M help" ends before a machine is made, and after the filter is set up or refused.
    filtered = await run([binary, "-sandbox", SECCOMP, "-M", "help"], timeout_s=_LIMIT_S)
    plain = filtered if filtered.returncode == 0 else await run([binary, "-M", "help"], timeout_s=_LIMIT_S)
    version = await run([binary, "--version"], timeout_s=_LIMIT_S)
    return read_installation(binary, machine, version=version, machines=plain, seccomp=filtered.returncode == 0)


def read_installation(
    binary: str, machine: str, *, version: Completed, machines: Completed, seccomp: bool
) -> QemuInstallation:
    """Say what QEMU's answers mean.

    Raises:
        ToolMissing: It is broken, or lacks the machine type.
    """
    found = re.search(rb"version (\S+)", version.stdout)
    if version.returncode != 0 or machines.returncode != 0 or found is None:
        raise ToolMissing(f"{binary} does not work", why=version.error_text or machines.error_text or "it said nothing")
    machine_type = _MACHINES[machine]
    if not re.search(rb"^%s\s" % machine_type.encode(), machines.stdout, re.MULTILINE):
        raise ToolMissing(f"{binary} has no machine type {machine_type}", why="boxes are machines of that type")
    return QemuInstallation(
        binary=binary, version=found[1].decode("ascii", "replace"), machine_type=machine_type, seccomp=seccomp
    )


def _keep(path: Path, text: str) -> None:
    ensure_private(path.parent)
    with published(path) as stream:
        stream.write(text.encode())
