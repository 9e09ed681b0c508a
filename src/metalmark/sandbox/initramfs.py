"""The initramfs of a box: the guest agent and just the modules that the box's devices need.

A cpio archive (``newc``, Linux ``Documentation/driver-api/early-userspace/buffer-format.rst``), uncompressed because
unpacking costs an emulated guest more than reading; reproducible; cached under the digest of its content.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from metalmark.sandbox.kernel_modules import Module
from metalmark.system import published

_FOLDERS: Final = ("dev", "modules", "proc", "sys")
_CONSOLE: Final = (5, 1)
_BLOCK: Final = 4


@dataclass(frozen=True, kw_only=True)
class CpioEntry:
    """One entry of a cpio archive."""

    name: str
    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def cpio(entries: Iterable[CpioEntry]) -> bytes:
    """Return a ``newc`` archive; owner root, times 0, inode numbers in order."""
    parts: list[bytes] = []
    for number, entry in enumerate(entries, start=1):
        parts += _entry(entry, number)
    parts += _entry(CpioEntry(name="TRAILER!!!", mode=0), 0)
    return b"".join(parts)


def initramfs_entries(agent: bytes, modules: Sequence[tuple[str, bytes]]) -> tuple[CpioEntry, ...]:
    """Return what an initramfs holds: ``/init``, ``/modules/NN-name.ko`` in load order, and ``/dev/console``."""
    return (
        *(CpioEntry(name=folder, mode=stat.S_IFDIR | 0o755) for folder in _FOLDERS),
        # Without it the kernel cannot give PID 1 its first three descriptors, and says so on the console.
        CpioEntry(name="dev/console", mode=stat.S_IFCHR | 0o600, device=_CONSOLE),
        CpioEntry(name="init", mode=stat.S_IFREG | 0o755, content=agent),
        *(
            CpioEntry(name=f"modules/{number:02}-{name}.ko", mode=stat.S_IFREG | 0o644, content=content)
            for number, (name, content) in enumerate(modules)
        ),
    )


def make_initramfs(cache: Path, agent: Path, modules: Sequence[Module]) -> Path:
    """Return the archive for an agent and modules, made when the cache has none.

    Args:
        cache: Folder of archives; made when missing.
        agent: The agent's binary.
        modules: In load order.

    Raises:
        NoSpace, OSError
    """
    archive = cpio(
        initramfs_entries(agent.read_bytes(), [(module.name, module.path.read_bytes()) for module in modules])
    )
    target = cache / f"{hashlib.sha256(archive).hexdigest()[:32]}.cpio"
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        with published(target) as stream:
            stream.write(archive)
    return target


def _entry(entry: CpioEntry, number: int) -> list[bytes]:
    name = entry.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (number, entry.mode, 0, 0, links, 0, len(entry.content), 0, 0, *entry.device, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return [header + name + _pad(len(header) + len(name)), entry.content + _pad(len(entry.content))]


def _pad(length: int) -> bytes:
    return b"\0" * (-length % _BLOCK)
