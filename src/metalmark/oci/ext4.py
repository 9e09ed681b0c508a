"""A writable ext4 with the content of a squashfs: ``mke2fs -d`` from the squashfs, mounted read-only.

The mount is made in a mount namespace of its own, together with its loop device: both are gone when that process is,
however it ends. So there is nothing to undo after a crash.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from uuid import UUID

from metalmark.model import MIB, Digest, NoPermission, NoSpace, StableError, ToolMissing
from metalmark.system import Completed, find_tool, free_bytes, no_space_told, run

_SCRIPT = 'mount -t squashfs -o loop,ro,nodev,nosuid,noexec "$1" "$2" || exit 97; shift 2; exec "$@"'
_MOUNT_FAILED = 97
_BLOCK_BYTES = 4096
_INODE_BYTES = 256
_TIMEOUT_S = 1800.0
_MIN_BYTES = 16 * MIB
_TRIES = 4
_OPTIONS = "lazy_itable_init=0,lazy_journal_init=1,nodiscard,assume_storage_prezeroed=1"
"""A sparse file reads as zeros, so nothing needs zeroing, neither now nor by a kernel thread during the measurement."""


async def make_ext4(squashfs: Path, target: Path, *, digest: Digest) -> None:
    """Make an ext4 no larger than its content needs; cloned, it is grown to the size of the box's disk.

    Args:
        squashfs: What to fill it with.
        target: An existing, empty file; complete and synced on return.
        digest: Its file system id is taken from this, so that the same image gives the same file.

    Raises:
        NoPermission: This user may not mount.
        StableError: The squashfs cannot be mounted here.
        ToolMissing: A tool is not installed, or fails.
        NoSpace: The file system is full.
    """
    if os.geteuid() != 0:
        raise NoPermission(
            "--rootfs ext4 needs root",
            why="the ext4 is filled from a mounted squashfs, and only root may mount one",
            hint="run it with sudo, or use --rootfs overlay",
        )
    mke2fs = find_tool("mke2fs", hint="apt-get install e2fsprogs")
    unshare = find_tool("unshare", hint="apt-get install util-linux")
    mount_point = target.parent / "mount"
    mount_point.mkdir(mode=0o700, exist_ok=True)
    content, inodes = _content_of(squashfs)
    size = _first_size(content, inodes)
    for _ in range(_TRIES):
        with no_space_told(target):
            os.truncate(target, 0)
            os.truncate(target, size)
        _check_room(target, content)
        done = await run(
            [
                unshare, "--mount", "--propagation", "private", "/bin/sh", "-c", _SCRIPT, "sh",
                str(squashfs), str(mount_point), mke2fs, *_arguments(size, inodes, digest),
                "-d", str(mount_point), str(target),
            ],
            timeout_s=_TIMEOUT_S,
            env={"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "E2FSPROGS_FAKE_TIME": "1"},
        )  # fmt: skip
        if done.returncode == 0:
            with target.open("rb") as stream:
                os.fsync(stream.fileno())
            return
        if not _is_full(done):
            raise _failure(done, squashfs)
        size += size // 2
    raise ToolMissing(f"mke2fs found {size} bytes too few for the files of {squashfs.name}", hint="report this")


def _arguments(size: int, inodes: int, digest: Digest) -> list[str]:
    name = str(UUID(digest.hex[:32]))
    # As many inodes as ext4 usually has for the size, or more when the image has small files above all.
    bytes_per_inode = max(2048, min(16384, size * 3 // (4 * inodes)))
    return [
        "-q", "-F", "-t", "ext4", "-b", str(_BLOCK_BYTES), "-I", str(_INODE_BYTES), "-i", str(bytes_per_inode),
        "-m", "0", "-U", name, "-E", f"{_OPTIONS},hash_seed={name}",
    ]  # fmt: skip


def _content_of(squashfs: Path) -> tuple[int, int]:
    with squashfs.open("rb") as stream:
        start = stream.read(96)
    inodes, used = struct.unpack_from("<I", start, 4)[0], struct.unpack_from("<Q", start, 40)[0]
    return used, inodes


def _first_size(content: int, inodes: int) -> int:
    """Guess the size from what is certain: content, half a block for the end of each file, inodes, a journal."""
    size = content + inodes * (_BLOCK_BYTES // 2 + 2 * _INODE_BYTES)
    journal = 4 * MIB if size < 128 * MIB else 16 * MIB if size < 512 * MIB else 64 * MIB
    size += size // 32 + journal + 2 * MIB
    return max(_MIN_BYTES, -(-size // MIB) * MIB)


def _check_room(target: Path, content: int) -> None:
    # mke2fs does not tell a full disk from a full image.
    room = free_bytes(target.parent)
    if room < content:
        raise NoSpace(
            f"{target.parent} has room for {room} bytes, and the ext4 takes {content}",
            hint="free some with `metalmark image gc`, or set METALMARK_HOME to a larger file system",
        )


def _is_full(done: Completed) -> bool:
    return b"Could not allocate" in done.stderr or b"No space left" in done.stderr or b"no free" in done.stderr.lower()


def _failure(done: Completed, squashfs: Path) -> StableError:
    if done.returncode == _MOUNT_FAILED:
        return StableError(
            f"{squashfs} cannot be mounted: {done.error_text}",
            why="the ext4 is filled from it",
            hint="see what `metalmark host doctor` says of squashfs and loop, or use --rootfs overlay",
        )
    return ToolMissing(
        f"mke2fs ended with {done.returncode}: {done.error_text}", hint="apt-get install --reinstall e2fsprogs"
    )
