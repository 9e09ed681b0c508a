"""Mounts: made and undone through mount(2), and listed from mountinfo."""

from __future__ import annotations

import ctypes
import os
import re
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_UMOUNT_NOFOLLOW = 8
_MNT_DETACH = 2
_OCTAL = re.compile(rb"\\([0-7]{3})")


class MountFlag(IntFlag):
    """Flags of mount(2) (linux/mount.h)."""

    NONE = 0
    READ_ONLY = 0x1
    NO_SUID = 0x2
    NO_DEV = 0x4
    NO_EXEC = 0x8
    REMOUNT = 0x20
    NO_ATIME = 0x400
    BIND = 0x1000
    RECURSIVE = 0x4000
    PRIVATE = 0x40000


@dataclass(frozen=True, kw_only=True)
class Mount:
    """One line of mountinfo."""

    mount_id: int
    parent_id: int
    root: str
    """The folder of its file system that this mount shows."""
    target: str
    options: frozenset[str]
    fs_type: str
    source: str
    super_options: frozenset[str]


def _check(result: int, path: str | Path) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))


def mount(
    source: str | Path, target: Path, fs_type: str = "", *, flags: MountFlag = MountFlag.NONE, data: str = ""
) -> None:
    """Mount in the calling thread's mount namespace.

    Raises:
        OSError: The kernel refused; nothing is mounted.
    """
    _check(
        _LIBC.mount(
            os.fsencode(source),
            os.fsencode(target),
            fs_type.encode() or None,
            ctypes.c_ulong(flags.value),
            os.fsencode(data) or None,
        ),
        target,
    )


def bind(source: Path, target: Path, *, read_only: bool = False, flags: MountFlag = MountFlag.NONE) -> None:
    """Show a file or folder at a second place.

    Raises:
        OSError: The kernel refused; nothing is mounted.
    """
    mount(source, target, flags=MountFlag.BIND)
    if not read_only and not flags:
        return
    wanted = flags | (MountFlag.READ_ONLY if read_only else MountFlag.NONE)
    try:
        # The kernel ignores flags on a new bind mount; they take a second call.
        mount("none", target, flags=MountFlag.REMOUNT | MountFlag.BIND | wanted)
    except OSError:
        unmount(target, lazy=True)
        raise


def unmount(target: Path, *, lazy: bool = False) -> None:
    """Undo the topmost mount at a path; lazily, it leaves the tree now and goes when its last user does.

    Raises:
        OSError: It is busy, or nothing is mounted there.
    """
    _check(_LIBC.umount2(os.fsencode(target), _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazy else 0)), target)


def make_private(target: Path = Path("/")) -> None:
    """Stop a tree of mounts from telling other namespaces of changes, and from hearing of theirs.

    Raises:
        OSError: The kernel refused.
    """
    mount("none", target, flags=MountFlag.RECURSIVE | MountFlag.PRIVATE)


def pivot_root(new_root: Path) -> None:
    """Make a mount the root of this mount namespace, for every process that had the old one, and drop the old one.

    Call it in a private mount namespace only.

    Raises:
        OSError: The kernel refused; ``new_root`` must be a mount.
    """
    os.chdir(new_root)
    # With the same path twice the old root ends up on top of the new one, so no folder of the image is needed for it.
    _check(_LIBC.pivot_root(b".", b"."), new_root)
    _check(_LIBC.umount2(b".", _MNT_DETACH), "/")
    os.chdir("/")


def parse_mountinfo(text: bytes) -> tuple[Mount, ...]:
    """Read the text of ``/proc/PID/mountinfo`` (proc_pid_mountinfo(5)); lines that are not whole are left out."""
    mounts = []
    for line in text.splitlines():
        fields = line.split(b" ")
        if len(fields) < 10 or b"-" not in fields[6:]:
            continue
        separator = fields.index(b"-", 6)
        if len(fields) < separator + 4:
            continue
        mounts.append(
            Mount(
                mount_id=int(fields[0]),
                parent_id=int(fields[1]),
                root=_unescape(fields[3]),
                target=_unescape(fields[4]),
                options=frozenset(fields[5].decode().split(",")),
                fs_type=fields[separator + 1].decode("utf-8", "replace"),
                source=_unescape(fields[separator + 2]),
                super_options=frozenset(fields[separator + 3].decode("utf-8", "replace").split(",")),
            )
        )
    return tuple(mounts)


def read_mounts(proc: Path = Path("/proc")) -> tuple[Mount, ...]:
    """Return the mounts of this process's namespace, in the order in which they were made."""
    return parse_mountinfo((proc / "self/mountinfo").read_bytes())


def unmount_below(folder: Path) -> tuple[str, ...]:
    """Undo every mount at or below a folder in this namespace, newest first, and return their places.

    Raises:
        OSError: The kernel refused even a lazy one.
    """
    prefix = str(folder)
    gone = []
    for entry in reversed(read_mounts()):
        if entry.target == prefix or entry.target.startswith(prefix.rstrip("/") + "/"):
            unmount(Path(entry.target), lazy=True)
            gone.append(entry.target)
    return tuple(gone)


def _unescape(field: bytes) -> str:
    return os.fsdecode(_OCTAL.sub(lambda match: bytes([int(match[1], 8)]), field))
