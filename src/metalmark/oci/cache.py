"""The content-addressed cache of images. Safe with several processes; what is in it was verified when it entered.

Below ``<cache>/images``::

    blobs/ALGORITHM/HEX             layers, manifests, indexes, configurations
    layers/ALGORITHM/HEX            diff_id and compression that a layer was found to have
    records/ALGORITHM/HEX/PLATFORM  what is remembered of a complete image; its mtime is its last use
    partial/ALGORITHM-HEX           a blob being written, by whoever holds its lock
    locks/XXX                       one lock for all blobs whose hex starts with XXX
    leases/NAME                     digests that a live process uses; locked for as long as it does
    lock                            held shared while a lease is made, exclusively while collecting

Locks are flocks: the kernel drops them when a process dies, so a lease or partial file whose lock is free is litter.
"""

from __future__ import annotations

import os
import secrets
import weakref
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from metalmark.model import Digest, DigestMismatch, InputError, Platform
from metalmark.oci.incoming import IncomingBlob, LayerCheck, LayerFacts
from metalmark.oci.media import Compression
from metalmark.oci.record import ImageRecord
from metalmark.system import (
    ensure_private,
    in_thread,
    locked,
    no_space_told,
    published,
    realtime_ns,
    sleep_s,
    try_locked,
)

_LOCK_DIGITS = 3
_FIRST_WAIT_S = 0.005
_LONGEST_WAIT_S = 0.1
_MAX_REFERENCES = 8
_STALE_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class CachedImage:
    """A complete image in the cache."""

    record: ImageRecord
    last_used_s: float
    """Seconds since the epoch."""
    files: tuple[Path, ...]
    """The record under each digest that leads to it."""


class ImageCache:
    """Images on this machine, below ``folder/images``; ``folder/rootfs`` beside it belongs to the root file systems.

    Images pulled through one object are protected from clean-up, also by other processes, until it is closed or the
    process ends. Methods that are not ``async`` block.

    Args:
        folder: The cache folder (`metalmark.system.Folders.cache`); made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images = folder / "images"
        self.blobs = self.images / "blobs"
        self._leases = ExitStack()
        self._finalizer = weakref.finalize(self, self._leases.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up the protection from clean-up of every image that was pulled through this object."""
        self._leases.close()

    def prepare(self) -> None:
        """Make the folders.

        Raises:
            NoPermission: They cannot be made.
            NoSpace: The file system is full.
        """
        ensure_private(self.folder)
        with no_space_told(self.images):
            ensure_private(self.images)
            for name in ("blobs", "layers", "records", "partial", "locks", "leases"):
                (self.images / name).mkdir(mode=0o700, exist_ok=True)

    def find(self, digest: Digest, platform: Platform) -> ImageRecord | None:
        """Return a complete image by the digest of its manifest or index, protect it and count it as used."""
        path = self._record_path(digest, platform)
        try:
            record = ImageRecord.from_json(path.read_bytes())
        except OSError:
            return None
        if record is None:
            return None
        self.protect(record.blobs)
        sizes = {layer.digest: layer.size_bytes for layer in record.layers}
        if not all(self.has(blob, sizes.get(blob)) for blob in record.blobs):
            return None
        with suppress(OSError):  # a collection may have taken the record; its blobs are protected by now
            os.utime(path)
        return record

    def remember(self, record: ImageRecord, keys: Iterable[Digest], platform: Platform) -> None:
        """Write down a complete image under the digests that lead to it for a platform.

        Raises:
            NoSpace: The file system is full.
        """
        for digest in dict.fromkeys(keys):
            path = self._record_path(digest, platform)
            known = None
            with suppress(OSError):
                known = ImageRecord.from_json(path.read_bytes())
            names = (*record.references, *(known.references if known is not None else ()))
            merged = replace(record, references=tuple(dict.fromkeys(names))[:_MAX_REFERENCES])
            if merged == known:
                continue
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with published(path) as stream:
                stream.write(merged.to_json())

    def images_held(self) -> list[CachedImage]:
        """Return every complete image, most recently used first."""
        found: dict[tuple[Digest, Platform], CachedImage] = {}
        for path in self.images.glob("records/*/*/*"):
            try:
                record = ImageRecord.from_json(path.read_bytes())
                used = path.stat().st_mtime
            except OSError:
                continue
            if record is None:
                continue
            key = (record.digest, record.platform)
            known = found.get(key)
            if known is not None:
                names = tuple(dict.fromkeys((*known.record.references, *record.references)))
                record = replace(record, references=names)
                used = max(used, known.last_used_s)
            files = (*(known.files if known is not None else ()), path)
            found[key] = CachedImage(record=record, last_used_s=used, files=files)
        return sorted(found.values(), key=lambda image: -image.last_used_s)

    def blob_path(self, digest: Digest) -> Path:
        """Return where a blob is or would be."""
        return self.blobs / digest.algorithm / digest.hex

    def has(self, digest: Digest, size_bytes: int | None = None) -> bool:
        """Whether a blob is there."""
        try:
            found = self.blob_path(digest).stat().st_size
        except OSError:
            return False
        return size_bytes is None or found == size_bytes

    def protect(self, digests: Iterable[Digest]) -> None:
        """Keep blobs, also ones that are not there yet, from clean-up until this object is closed.

        Raises:
            NoSpace: The file system is full.
        """
        if not self.images.is_dir():
            self.prepare()
        with locked(self.images / "lock", shared=True), no_space_told(self.images):
            path = self.images / "leases" / secrets.token_hex(8)
            with ExitStack() as stack:
                stack.callback(path.unlink, missing_ok=True)
                stack.enter_context(try_locked(path))
                path.write_text("\n".join(map(str, digests)), encoding="ascii")
                self._leases.enter_context(stack.pop_all())

    def protected(self) -> frozenset[Digest]:
        """Return what live processes use, and remove what dead ones left. Call with ``lock`` held exclusively."""
        digests: set[Digest] = set()
        for path in (self.images / "leases").iterdir():
            with try_locked(path) as dead:
                if dead:
                    path.unlink(missing_ok=True)
                    continue
            with suppress(InputError):
                digests.update(map(Digest.parse, path.read_text(encoding="ascii").split()))
        return frozenset(digests)

    def sweep(self) -> None:
        """Remove blobs that a process left half-written when it died."""
        with suppress(FileNotFoundError):
            for path in (self.images / "partial").iterdir():
                with try_locked(self._lock_path(path.name.partition("-")[2])) as dead:
                    if dead:
                        path.unlink(missing_ok=True)

    def sweep_documents(self) -> None:
        """Remove small files that a process was about to publish when it died; it takes a moment to write one."""
        limit_s = realtime_ns() / 1e9 - _STALE_S
        for path in self.images.rglob(".*.partial"):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < limit_s:
                    path.unlink()

    def put(self, digest: Digest, data: bytes, *, what: str) -> None:
        """Verify a document and keep it.

        Raises:
            DigestMismatch: It does not have that digest.
            NoSpace: The file system is full.
        """
        found = Digest.of(data, digest.algorithm)
        if found != digest:
            raise DigestMismatch(f"{what} has the content of {found}", why="it was damaged or replaced on the way")
        if not self.has(digest, len(data)):
            with published(self._made(self.blob_path(digest))) as stream:
                stream.write(data)

    @asynccontextmanager
    async def exclusive(self, digest: Digest) -> AsyncIterator[None]:
        """Wait for the lock of a blob and hold it."""
        path, wait_s = self._lock_path(digest.hex), _FIRST_WAIT_S
        while (held := await in_thread(_try_lock, path)) is None:
            # Another process or task writes this blob. flock has no event to wait for.
            await sleep_s(wait_s)
            wait_s = min(wait_s * 2, _LONGEST_WAIT_S)
        with held:
            yield

    def incoming(self, digest: Digest, size_bytes: int, *, what: str, check: LayerCheck) -> IncomingBlob:
        """Return a layer to be written. The caller holds its lock (`exclusive`)."""
        return IncomingBlob(
            target=self._made(self.blob_path(digest)),
            partial=self.images / "partial" / f"{digest.algorithm}-{digest.hex}",
            digest=digest,
            size_bytes=size_bytes,
            what=what,
            check=check,
        )

    def layer_facts(self, digest: Digest) -> LayerFacts | None:
        """Return what a layer in the cache was found to be, or None when that is not known."""
        try:
            diff_id, compression = self._facts_path(digest).read_text(encoding="ascii").split()
            return LayerFacts(diff_id=Digest.parse(diff_id), compression=Compression(compression))
        except (OSError, ValueError, InputError):
            return None

    def remember_layer(self, digest: Digest, facts: LayerFacts) -> None:
        """Write down what a layer was found to be.

        Raises:
            NoSpace: The file system is full.
        """
        with published(self._made(self._facts_path(digest))) as stream:
            stream.write(f"{facts.diff_id} {facts.compression}\n".encode())

    def stored(self) -> Iterator[tuple[Digest, Path]]:
        """Every blob in the cache."""
        for path in self.blobs.glob("*/*"):
            with suppress(InputError):
                yield Digest.parse(f"{path.parent.name}:{path.name}"), path

    def forget(self, digest: Digest) -> None:
        """Remove a blob and what is known of it. Call with ``lock`` held exclusively."""
        self._facts_path(digest).unlink(missing_ok=True)
        self.blob_path(digest).unlink(missing_ok=True)

    def _facts_path(self, digest: Digest) -> Path:
        return self.images / "layers" / digest.algorithm / digest.hex

    def _record_path(self, digest: Digest, platform: Platform) -> Path:
        return self.images / "records" / digest.algorithm / digest.hex / quote(str(platform), safe="")

    def _lock_path(self, hex_digits: str) -> Path:
        return self.images / "locks" / hex_digits[:_LOCK_DIGITS]

    @staticmethod
    def _made(path: Path) -> Path:
        with no_space_told(path):
            path.parent.mkdir(mode=0o700, exist_ok=True)
        return path


def _try_lock(path: Path) -> ExitStack | None:
    with ExitStack() as stack:
        return stack.pop_all() if stack.enter_context(try_locked(path)) else None
