"""A folder of blobs: a file for each key, whole or not there, and there to stay once it was said to be.

A file is written under another name beside its own and renamed. That name ends in ``#`` and digits, which lists of the
folder leave out (the library for object stores has it so); what a killed process left of such files goes later.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, TypeAlias

import anyio

from metalmark.model import DigestMismatch, TooLarge
from metalmark.system import in_thread, sync_folder

Bytes: TypeAlias = bytes | bytearray
CHUNK_BYTES = 1024 * 1024
"""Size of the pieces in which a blob is streamed."""
_UNFINISHED = re.compile(r".*#\d+")
_PRIVATE = 0o600
_EARLY_BYTES = 16 * 1024 * 1024


class _EarlyWriter:
    """Writes to a file that will be synced, and has the disk begin before it is, so that nobody waits for all of it.

    Args:
        stream: The file, from its beginning on.
        durable: Whether it will be synced at all.
    """

    def __init__(self, stream: IO[bytes], *, durable: bool) -> None:
        self._stream = stream
        self._durable = durable
        self._begun = self._written = 0

    def write(self, piece: Bytes) -> None:
        """Write what comes next."""
        self._stream.write(piece)
        self._written += len(piece)
        count = self._written - self._begun
        if self._durable and count >= _EARLY_BYTES:
            self._stream.flush()
            # Linux begins to write such a range, and forgets of it what is written already: nothing, so soon.
            os.posix_fadvise(self._stream.fileno(), self._begun, count, os.POSIX_FADV_DONTNEED)
            self._begun = self._written


class BlobFolder:
    """The files of a folder. Keys are checked by the caller; errors are the operating system's.

    Args:
        folder: The folder, without symbolic links in its path.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lasting: set[Path] = set()

    async def put(self, key: str, data: Bytes | AsyncIterator[Bytes], *, durable: bool) -> None:
        """Store a blob in place of one that is there.

        Args:
            key: Where to.
            data: The bytes, or pieces of them. When the iterator raises, nothing is stored.
            durable: Whether it has to survive a loss of power.

        Raises:
            OSError: It could not be written; nothing of it is there.
        """
        path = self._folder / key
        if isinstance(data, (bytes, bytearray)):
            await in_thread(self._put_whole, path, data, durable)
            return
        unfinished, stream = await in_thread(self._begun, path)
        try:
            sent = _EarlyWriter(stream, durable=durable)
            async for piece in data:
                await in_thread(sent.write, piece)
            await in_thread(self._finish, unfinished, stream, path, durable)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await in_thread(_drop, unfinished, stream)
            raise

    async def join(self, parts: Sequence[str], key: str, *, checksum: str) -> bool:
        """Store the blobs of some keys as one; nothing when their SHA-256 is another."""
        paths = [self._folder / part for part in parts]
        return await in_thread(self._join, paths, self._folder / key, checksum)

    async def read(self, key: str, *, limit_bytes: int | None) -> bytes:
        """Return a blob whole.

        Raises:
            TooLarge: It is over the limit.
            OSError: It is not there, or cannot be read.
        """
        return await in_thread(_read, self._folder / key, key, limit_bytes)

    async def read_range(self, key: str, start: int, end: int) -> bytes:
        """Return the bytes of a blob from one offset to before another, as far as there are any."""
        return await in_thread(_read_range, self._folder / key, start, end)

    async def stream(self, key: str, start: int, end: int | None) -> AsyncIterator[bytes]:
        """Yield a blob, or a range of it, in pieces of `CHUNK_BYTES` at most."""
        stream = await self.open(key)
        try:
            stream.seek(start)
            left = None if end is None else end - start
            while left is None or left > 0:
                piece = await in_thread(stream.read, CHUNK_BYTES if left is None else min(CHUNK_BYTES, left))
                if not piece:
                    return
                yield piece
                left = None if left is None else left - len(piece)
        finally:
            stream.close()

    async def open(self, key: str) -> IO[bytes]:
        """Return a blob's file, open to be read; whoever asks for it closes it."""
        return await in_thread(_opened, self._folder / key)

    async def drop_unfinished(self, before: datetime) -> int:
        """Delete what was begun to be written before a time and never ended, and return how many files that was."""
        walk = os.walk(self._folder)
        count = 0
        # A folder at a time, so that no step takes long.
        while (entry := await in_thread(next, walk, None)) is not None:
            folder, _, names = entry
            count += await in_thread(_drop_unfinished, Path(folder), names, before.timestamp())
        return count

    def _put_whole(self, path: Path, data: Bytes, durable: bool) -> None:  # noqa: FBT001  called in a thread
        with self._writing(path, durable=durable) as stream:
            stream.write(data)

    def _join(self, parts: Sequence[Path], path: Path, checksum: str) -> bool:
        try:
            with self._writing(path, durable=True) as stream:
                require_checksum(_joined(parts, stream), checksum)
        except DigestMismatch:
            return False
        return True

    @contextmanager
    def _writing(self, path: Path, *, durable: bool) -> Iterator[IO[bytes]]:
        unfinished, stream = self._begun(path)
        try:
            yield stream
            self._finish(unfinished, stream, path, durable)
        except BaseException:
            _drop(unfinished, stream)
            raise

    def _begun(self, path: Path) -> tuple[Path, IO[bytes]]:
        unfinished = path.with_name(f"{path.name}#{secrets.randbits(62)}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            return unfinished, os.fdopen(os.open(unfinished, flags, _PRIVATE), "wb")
        except FileNotFoundError:
            # The first of its folder, or somebody has emptied the storage.
            self._lasting.discard(path.parent)
            path.parent.mkdir(parents=True, exist_ok=True)
            return unfinished, os.fdopen(os.open(unfinished, flags, _PRIVATE), "wb")

    def _finish(self, unfinished: Path, stream: IO[bytes], path: Path, durable: bool) -> None:  # noqa: FBT001  as above
        stream.flush()
        if durable:
            os.fsync(stream.fileno())
        stream.close()
        unfinished.replace(path)
        if durable:
            self._sync_folders(path.parent)

    def _sync_folders(self, folder: Path) -> None:
        sync_folder(folder)
        # A folder's own name is made to last once; it never changes.
        while folder not in self._lasting and folder != self._folder:
            sync_folder(folder.parent)
            self._lasting.add(folder)
            folder = folder.parent


def require_checksum(found: str, wanted: str) -> None:
    """Refuse what was joined when it is something else.

    Raises:
        DigestMismatch: It is.
    """
    if found != wanted:
        raise DigestMismatch("the parts have another checksum")


def _joined(parts: Sequence[Path], stream: IO[bytes]) -> str:
    hasher, buffer = hashlib.sha256(), memoryview(bytearray(CHUNK_BYTES))
    for part in parts:
        with part.open("rb", buffering=0) as source:
            while read := source.readinto(buffer):
                hasher.update(buffer[:read])
                stream.write(buffer[:read])
    return hasher.hexdigest()


def _drop(unfinished: Path, stream: IO[bytes]) -> None:
    for step in (stream.close, unfinished.unlink):
        _try(step)


def _try(step: Callable[[], None]) -> None:
    # Closing writes what is left, which fails again where the disk is full; and the file may be in its place by now.
    try:
        step()
    except OSError:
        return


def _opened(path: Path) -> IO[bytes]:
    return path.open("rb")


def _read(path: Path, key: str, limit_bytes: int | None) -> bytes:
    with path.open("rb") as stream:
        if limit_bytes is not None and os.fstat(stream.fileno()).st_size > limit_bytes:
            raise TooLarge(f"blob {key}", limit_bytes)
        return stream.read()


def _read_range(path: Path, start: int, end: int) -> bytes:
    with path.open("rb", buffering=0) as stream:
        return os.pread(stream.fileno(), end - start, start)


def _drop_unfinished(folder: Path, names: Sequence[str], before_s: float) -> int:
    count = 0
    for path in (folder / name for name in names if _UNFINISHED.fullmatch(name)):
        try:
            if path.stat().st_mtime < before_s:
                path.unlink()
                count += 1
        except FileNotFoundError:
            # It came to its end meanwhile.
            continue
    return count
