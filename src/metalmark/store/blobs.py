"""Blobs: bytes under keys, in a folder or in an object store (S3 and what speaks like it, by URL).

A blob appears whole or not at all. In a folder it is synced before `Blobs.put` returns, so that a row of the database
may refer to it. Keys are made by the server alone: lower-case words joined by slashes.
"""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, MemoryStore, ObjectStore, from_url

from metalmark.model import DigestMismatch, InputError, NoSpace, NotFound, StoreAway, StoreFull, TooLarge, new_id
from metalmark.store.blob_folder import CHUNK_BYTES, BlobFolder, Bytes, require_checksum

if TYPE_CHECKING:
    from obstore import GetOptions

_PART_BYTES = 8 * 1024 * 1024
_LISTED_AT_ONCE = 500
_KEY = re.compile(r"[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*")
_KEY_MAX_LENGTH = 512
_PRESENT = "probes/present"
_REASON_CHARACTERS = 400
_SCHEMES = frozenset({"s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "https", "http"})
_SHORT = ("InvalidRange", "416 Requested Range", "416 Range")
_FULL = ("os error 28", "os error 122")  # ENOSPC and EDQUOT, as the Rust library words them


@dataclass(frozen=True, kw_only=True)
class BlobFacts:
    """A blob's key and its size."""

    key: str
    size_bytes: int


class Blobs:
    """Bytes under keys. Safe to use from many tasks, and from several processes."""

    def __init__(self, backend: ObjectStore, folder: BlobFolder | None = None) -> None:
        self._backend = backend
        self._folder = folder

    @classmethod
    def open(cls, location: str | Path) -> Blobs:
        """Open a folder, which is made when missing, or an object store by its URL (``s3://bucket/prefix``).

        Credentials of an object store come from its usual environment variables, not from the URL.

        Raises:
            InputError: The URL is of an unknown kind, or names no bucket.
            StoreUnavailable: The folder cannot be made.
        """
        text = str(location)
        scheme = urlsplit(text).scheme if "://" in text else ""
        if scheme in ("", "file"):
            return cls._in_folder(Path(urlsplit(text).path if scheme else text))
        if scheme not in _SCHEMES:
            raise InputError(
                "storage", f"{scheme}://…", "no such kind of storage", hint="a folder, or s3://bucket/prefix"
            )
        try:
            retry = {"max_retries": 3, "retry_timeout": timedelta(seconds=30)}
            # These options beat the environment; an endpoint without TLS is one that the operator named there.
            clients = {"connect_timeout": timedelta(seconds=5), "timeout": timedelta(seconds=60), "allow_http": True}
            return cls(from_url(text, client_options=clients, retry_config=retry))  # type: ignore[call-overload]  # the overloads are by store, and this one is not known
        except (BaseError, ValueError) as error:
            raise InputError("storage", f"{scheme}://…", "cannot be used as storage", hint=str(error)[:300]) from error

    @classmethod
    def _in_folder(cls, folder: Path) -> Blobs:
        with _told("the folder of blobs"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            resolved = folder.resolve()
            return cls(LocalStore(resolved), BlobFolder(resolved))

    @classmethod
    def in_memory(cls) -> Blobs:
        """Return blobs that end with the process, for tests."""
        return cls(MemoryStore())

    async def put(self, key: str, data: Bytes | AsyncIterator[Bytes], *, durable: bool = True) -> int:
        """Store a blob, in place of one that is there, and return its size in bytes.

        When the iterator raises, nothing is stored and its error goes on.

        Args:
            key: Where to.
            data: The bytes, or pieces of them.
            durable: Whether a blob in a folder has to survive a loss of power.

        Raises:
            StoreUnavailable: It could not be written; nothing of it is there.
        """
        content = data if isinstance(data, (bytes, bytearray)) else _Counted(data)
        try:
            with _told(key):
                if self._folder is not None:
                    await self._folder.put(_checked(key), content, durable=durable)
                else:
                    whole = content if isinstance(content, (bytes, bytearray)) else content.as_bytes()
                    await obstore.put_async(self._backend, _checked(key), whole, chunk_size=_PART_BYTES)
        except Exception:
            # What the source raised tells more than that the library could not go on.
            if isinstance(content, _Counted) and content.error is not None:
                raise content.error from None
            raise
        return content.count if isinstance(content, _Counted) else len(content)

    async def join(self, parts: Sequence[str], key: str, *, checksum: str) -> bool:
        """Store the blobs of some keys, one after the other, as one; nothing when their SHA-256 is another.

        Raises:
            NotFound: A part is missing.
            StoreUnavailable: The whole could not be written; nothing of it is there.
        """
        if self._folder is not None:
            with _told(key):
                return await self._folder.join([_checked(part) for part in parts], _checked(key), checksum=checksum)
        hasher = hashlib.sha256()

        async def whole() -> AsyncIterator[bytes]:
            for part in parts:
                content = await self.get(part)
                hasher.update(content)
                yield content
            require_checksum(hasher.hexdigest(), checksum)

        try:
            await self.put(key, whole())
        except DigestMismatch:
            return False
        return True

    async def get(self, key: str, *, limit_bytes: int | None = None) -> bytes:
        """Return a blob whole.

        Raises:
            NotFound: There is none under this key.
            TooLarge: It is over the limit.
            StoreUnavailable: It could not be read.
        """
        with _told(key):
            if self._folder is not None:
                # The library would hand it over in memory of its own, and copying that is most of the work.
                return await self._folder.read(_checked(key), limit_bytes=limit_bytes)
            result = await obstore.get_async(self._backend, _checked(key))
            if limit_bytes is not None and result.meta["size"] > limit_bytes:
                raise TooLarge(f"blob {key}", limit_bytes)
            return bytes(await result.bytes_async())

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        """Return the bytes of a blob from one offset to before another, which is greater; fewer where it ends before.

        Raises:
            NotFound: There is none under this key.
            StoreUnavailable: It could not be read.
        """
        with _told(key):
            if self._folder is not None:
                return await self._folder.read_range(_checked(key), start, end)
            return bytes(await obstore.get_range_async(self._backend, _checked(key), start=start, end=end))

    async def open_file(self, key: str) -> IO[bytes] | None:
        """Return a blob's file, open to be read, for whoever passes it on without reading it; they close it.

        Returns:
            None where blobs are no files.

        Raises:
            NotFound: There is none under this key.
            StoreUnavailable: It could not be opened.
        """
        if self._folder is None:
            return None
        with _told(key):
            return await self._folder.open(_checked(key))

    async def stream(self, key: str, *, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Yield a blob, or a range of it, in pieces of about `CHUNK_BYTES`.

        Args:
            key: Which one.
            start: Offset of the first byte.
            end: Offset after the last byte; None for the blob's end. Greater than ``start``.

        Raises:
            NotFound: There is none under this key; raised before the first piece.
            StoreUnavailable: It could not be read.
        """
        with _told(key):
            if self._folder is not None:
                async for piece in self._folder.stream(_checked(key), start, end):
                    yield piece
                return
            options: GetOptions = {}
            if start or end is not None:
                options["range"] = {"offset": start} if end is None else (start, end)
            result = await obstore.get_async(self._backend, _checked(key), options=options)
            async for piece in result.stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(piece)

    async def facts(self, key: str) -> BlobFacts | None:
        """Return a blob's size, or None when there is none.

        Raises:
            StoreUnavailable: It could not be asked.
        """
        try:
            with _told(key):
                return BlobFacts(key=key, size_bytes=(await obstore.head_async(self._backend, _checked(key)))["size"])
        except NotFound:
            return None

    async def below(self, prefix: str) -> tuple[BlobFacts, ...]:
        """Return the blobs whose keys begin with ``prefix/``, by key.

        Raises:
            StoreUnavailable: They could not be listed.
        """
        found: list[BlobFacts] = []
        with _told(prefix):
            async for batch in obstore.list(self._backend, prefix=_checked(prefix)):
                found += [BlobFacts(key=item["path"], size_bytes=item["size"]) for item in batch]
        return tuple(sorted(found, key=lambda facts: facts.key))

    async def older(self, prefix: str, before: datetime) -> AsyncIterator[tuple[str, ...]]:
        """Yield the keys of the blobs below a prefix that were written before a time, some at once.

        Raises:
            StoreUnavailable: They could not be listed.
        """
        with _told(prefix):
            async for batch in obstore.list(self._backend, prefix=_checked(prefix), chunk_size=_LISTED_AT_ONCE):
                if found := tuple(item["path"] for item in batch if item["last_modified"] < before):
                    yield found

    async def drop_unfinished(self, before: datetime) -> int:
        """Delete what writes left in a folder that began before a time and were cut off; return how many files.

        An object store keeps such things to itself: its own rules of life delete them.

        Raises:
            StoreUnavailable: The folder cannot be read.
        """
        if self._folder is None:
            return 0
        with _told("unfinished"):
            return await self._folder.drop_unfinished(before)

    async def check(self) -> None:
        """Write a blob and delete it, and leave another one there for `answer`.

        Raises:
            StoreUnavailable: The storage cannot be used now, for want of a permission or of the bucket perhaps.
        """
        key = f"probes/{new_id()}"
        try:
            await self.put(key, b"", durable=False)
            await self.delete(key)
            await self.put(_PRESENT, b"", durable=False)
        except (NotFound, StoreAway) as error:
            reason = str(error.__cause__ or error).strip().partition("\n")[0][:_REASON_CHARACTERS]
            hint = "see `storage` of the configuration, and the object store's variables of the environment"
            raise StoreAway("the storage cannot be written to", why=reason, hint=hint) from error

    async def answer(self) -> None:
        """Ask the storage for what `check` has left there; costs next to nothing.

        Raises:
            StoreUnavailable: It does not answer, or is no longer what it was: a file system that is not mounted.
        """
        if await self.facts(_PRESENT) is None:
            raise StoreAway("the storage is empty", why="what this server put there at its start is gone")

    async def delete(self, *keys: str) -> None:
        """Delete blobs; those that are not there are passed over.

        Raises:
            StoreUnavailable: One could not be deleted.
        """
        for key in keys:
            try:
                with _told(key):
                    await obstore.delete_async(self._backend, _checked(key))
            except NotFound:
                continue


class _Counted:
    """Counts the bytes of a source and keeps its error."""

    def __init__(self, source: AsyncIterator[Bytes]) -> None:
        self._source = source
        self.count = 0
        self.error: BaseException | None = None

    def __aiter__(self) -> _Counted:
        return self

    async def __anext__(self) -> Bytes:
        try:
            piece = await anext(self._source)
        except StopAsyncIteration:
            raise
        except BaseException as error:
            self.error = error
            raise
        self.count += len(piece)
        return piece

    async def as_bytes(self) -> AsyncIterator[bytes]:
        """Yield the pieces as the library for object stores takes them."""
        async for piece in self:
            yield bytes(piece)


def _checked(key: str) -> str:
    if len(key) > _KEY_MAX_LENGTH or not _KEY.fullmatch(key):
        raise ValueError(f"not a key of a blob: {key[:64]!r}")
    return key


@contextmanager
def _told(key: str) -> Iterator[None]:
    try:
        yield
    except NoSpace as error:
        raise StoreFull("no space left for blobs", hint="free some, or move `storage`") from error
    except (NotFoundError, FileNotFoundError) as error:
        raise NotFound("blob", key) from error
    except (BaseError, OSError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull("no space left for blobs", hint="free some, or move `storage`") from error
        if any(mark in str(error) for mark in _FULL):
            raise StoreFull("no space left for blobs", hint="free some, or move server.storage") from error
        if any(mark in str(error) for mark in _SHORT):
            # What is asked for of it was written, and is not there any more.
            raise NotFound("blob", key) from error
        raise StoreAway(f"blob {key} cannot be reached", why=type(error).__name__) from error
