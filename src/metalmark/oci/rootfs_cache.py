"""The cache of root file systems: built once whatever number of processes asks, and never taken from who uses it.

Below the folder::

    NAME              a root file system; its mtime is its last use. Whoever uses it holds a shared lock on it.
    NAME.….partial    one being built; its builder holds an exclusive lock on it, so without one it is litter
    locks/…           which process builds what

Locks are flocks: the kernel drops them with the process, however it dies. Nobody keeps a lock file open that another
may remove, except the root file systems themselves, whose lockers look whether the name still means the same file.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from metalmark.model import GIB
from metalmark.system import ensure_private, in_thread, no_space_told, sleep_s, sync_folder, try_locked

DEFAULT_MAX_BYTES = 40 * GIB
"""How much may stay when nothing else is said."""
_PARTIAL = ".partial"
_LOCKS = "locks"
_FIRST_WAIT_S = 0.005
_LONGEST_WAIT_S = 0.1
_FINISHED_MODE = 0o400
_TRIES = 100

Build = Callable[[Path], Awaitable[None]]
"""Fills an existing, empty file and syncs it."""


@dataclass(frozen=True, kw_only=True)
class CachedRootfs:
    """One file of the cache."""

    path: Path
    size_bytes: int
    """What it takes on the disk."""
    last_used_s: float
    """Seconds since the epoch."""
    in_use: bool


class RootfsCache:
    """Root file systems in a folder.

    Args:
        folder: Where; made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @asynccontextmanager
    async def held(self, name: str, build: Build, *, max_bytes: int | None) -> AsyncIterator[tuple[Path, bool]]:
        """Yield the file of a name and whether it was there; it stays as long as the context lasts.

        Args:
            name: Of the file. The same name always means the same content.
            build: Makes it when it is not there. Errors it raises are passed on and nothing of the file stays.
            max_bytes: After a build, what has not been used for longest is removed down to this; None: nothing is.

        Raises:
            NoSpace: The file system is full.
        """
        path = self._folder / name
        descriptor = _hold(path)
        cached = descriptor is not None
        if descriptor is None:
            descriptor, cached = await self._make(path, build)
            if max_bytes is not None:
                await in_thread(self.collect, max_bytes)
        try:
            yield path, cached
        finally:
            os.close(descriptor)

    def entries(self) -> tuple[CachedRootfs, ...]:
        """Return what is in the cache, least recently used first."""
        found = []
        for path in self._files():
            with suppress(FileNotFoundError):
                status = path.stat()
                with _taken(path) as free:
                    in_use = not free
                found.append(
                    CachedRootfs(
                        path=path, size_bytes=status.st_blocks * 512, last_used_s=status.st_mtime, in_use=in_use
                    )
                )
        return tuple(sorted(found, key=lambda entry: (entry.last_used_s, entry.path.name)))

    def collect(self, max_bytes: int) -> tuple[CachedRootfs, ...]:
        """Remove what has not been used for longest until the rest fits, but nothing in use; return what is gone.

        Files that dead builders left are swept too.
        """
        self.sweep()
        entries = self.entries()
        total = sum(entry.size_bytes for entry in entries)
        gone = []
        for entry in entries:
            if total <= max_bytes:
                break
            if _remove_unused(entry.path):
                total -= entry.size_bytes
                gone.append(entry)
        return tuple(gone)

    def sweep(self) -> None:
        """Remove what dead builders left."""
        with suppress(FileNotFoundError):
            for path in self._folder.iterdir():
                # Other files of the folder are hidden while they are written, and nobody locks them.
                if path.name.endswith(_PARTIAL) and not path.name.startswith("."):
                    _remove_unused(path)

    def _files(self) -> Iterator[Path]:
        with suppress(FileNotFoundError):
            for path in self._folder.iterdir():
                if path.suffix in (".squashfs", ".ext4"):
                    yield path

    async def _make(self, path: Path, build: Build) -> tuple[int, bool]:
        with no_space_told(path):
            ensure_private(self._folder)
            locks = self._folder / _LOCKS
            locks.mkdir(mode=0o700, exist_ok=True)
        # Few lock files that stay, rather than one a root file system that somebody would have to remove. A builder
        # holds at most one of each suffix, and always that of what it builds before that of what it builds from.
        stripe = locks / f"{path.suffix[1:]}-{hashlib.sha256(path.name.encode()).hexdigest()[:2]}"
        async with _building(stripe):
            for _ in range(_TRIES):
                found = _hold(path)
                if found is not None:
                    return found, True
                await in_thread(self.sweep)
                made = await self._build(path, build)
                if made is not None:
                    return made, False
        raise FileNotFoundError(f"{path} is removed by somebody else as often as it is built")

    async def _build(self, path: Path, build: Build) -> int | None:
        with no_space_told(path), ExitStack() as undo:
            descriptor, partial = _new_partial(path)
            undo.callback(os.close, descriptor)
            undo.callback(partial.unlink, missing_ok=True)
            await build(partial)
            os.fchmod(descriptor, _FINISHED_MODE)
            os.utime(descriptor)
            partial.rename(path)
            undo.pop_all()
        try:
            await in_thread(sync_folder, path.parent)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        except BaseException:
            os.close(descriptor)
            raise
        if _is_same(path, descriptor):
            return descriptor
        # Collected between the change from the exclusive to the shared lock.
        os.close(descriptor)
        return None


@asynccontextmanager
async def _building(lock: Path) -> AsyncIterator[None]:
    # Asked again and again, because a thread that waits in flock(2) could not be cancelled.
    wait_s = _FIRST_WAIT_S
    while True:
        with try_locked(lock) as got:
            if got:
                yield
                return
        await sleep_s(wait_s)
        wait_s = min(2 * wait_s, _LONGEST_WAIT_S)


def _hold(path: Path) -> int | None:
    """Lock a finished file against removal and note its use; None when it is not there."""
    for _ in range(_TRIES):
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if _is_same(path, descriptor):
                os.utime(descriptor)
                return descriptor
        except BlockingIOError:
            # It is being removed this moment, or has just been published; the build lock will tell.
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    return None


def _is_same(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _new_partial(path: Path) -> tuple[int, Path]:
    while True:
        descriptor, name = tempfile.mkstemp(prefix=f"{path.name}.", suffix=_PARTIAL, dir=path.parent)
        partial = Path(name)
        # A sweeper may have come between making and locking; then this name means nothing any more.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _is_same(partial, descriptor):
            return descriptor, partial
        os.close(descriptor)


@contextmanager
def _taken(path: Path) -> Iterator[bool]:
    """Yield whether nobody uses a file; while the context lasts, nobody can begin to."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield _is_same(path, descriptor)
    finally:
        os.close(descriptor)


def _remove_unused(path: Path) -> bool:
    with suppress(FileNotFoundError), _taken(path) as free:
        if free:
            path.unlink()
            return True
    return False
