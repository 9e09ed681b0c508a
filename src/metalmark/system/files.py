"""Files: published by rename after sync, cloned cheaply, locked across processes."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from metalmark.model import NoSpace

_FICLONE = 0x40049409
"""ioctl number of FICLONE (linux/fs.h): share the extents of another file."""


@contextmanager
def published(path: Path, *, mode: int = 0o600) -> Iterator[IO[bytes]]:
    """Give a temporary file beside ``path`` to write to; on a clean exit it is synced and renamed into place.

    On an error nothing of it stays.

    Raises:
        NoSpace: The file system is full.
    """
    with no_space_told(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:64]}.", suffix=".partial", dir=path.parent)
        try:
            with os.fdopen(handle, "w+b") as stream:
                yield stream
                stream.flush()
                os.fchmod(stream.fileno(), mode)
                os.fsync(stream.fileno())
            Path(name).replace(path)
            sync_folder(path.parent)
        except BaseException:
            with suppress(FileNotFoundError):
                Path(name).unlink()
            raise


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def no_space_told(path: Path) -> Iterator[None]:
    """Turn "no space left" of the operating system into `NoSpace` with the place and what to do.

    Raises:
        NoSpace: The file system or the quota is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise NoSpace(
            f"no space left for {path}",
            hint="free some with `metalmark image gc`, or set METALMARK_HOME to a larger file system",
        ) from error


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[IO[bytes]]:
    """Hold an advisory lock (flock) on a file, made when missing; waits. The kernel drops it when the process dies."""
    with path.open("ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield stream


@contextmanager
def try_locked(path: Path) -> Iterator[bool]:
    """Like `locked`, exclusive, but yields False at once when another process holds the lock."""
    with path.open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def clone(source: Path, target: Path) -> str:
    """Copy a file by sharing its extents, or else copy only what is not a hole; ``target`` must not exist.

    Returns:
        ``reflink`` or ``sparse copy``.

    Raises:
        NoSpace: The file system is full; nothing is left.
    """
    with no_space_told(target), source.open("rb") as reader, target.open("xb") as writer:
        try:
            try:
                fcntl.ioctl(writer, _FICLONE, reader.fileno())
            except OSError:
                _copy_sparse(reader.fileno(), writer.fileno())
            else:
                return "reflink"
        except BaseException:
            target.unlink()
            raise
    return "sparse copy"


def _copy_sparse(reader: int, writer: int) -> None:
    size = os.fstat(reader).st_size
    os.ftruncate(writer, size)
    offset = 0
    while offset < size:
        try:
            start = os.lseek(reader, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(reader, start, os.SEEK_HOLE)
        _copy_range(reader, writer, start, end)
        offset = end


def _copy_range(reader: int, writer: int, start: int, end: int) -> None:
    os.lseek(writer, start, os.SEEK_SET)
    while start < end:
        copied = os.sendfile(writer, reader, start, end - start)
        if copied == 0:
            return
        start += copied


def free_bytes(folder: Path) -> int:
    """Bytes that an ordinary user may still write to the file system of a folder."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize
