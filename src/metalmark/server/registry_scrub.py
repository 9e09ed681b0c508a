"""Scrubbing: everything that the registry holds is read and hashed, to find what the storage has lost or changed.

A damaged blob is not there for clients until somebody pushes it again; that push repairs it in all repositories.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from metalmark.model import Digest, NotFound
from metalmark.server.registry_content import digest_of
from metalmark.store import (
    Blobs,
    Store,
    StoredBlob,
    StoredManifest,
    find_parts,
    mark_blob,
    name_of_repository,
    names_of_blob,
    stored_blobs,
    stored_manifests,
)
from metalmark.system import Clock

_BATCH = 100
_MANIFESTS_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True)
class Damage:
    """Something that is not what it was."""

    kind: str
    """``blob`` or ``manifest``."""
    digest: Digest
    repositories: tuple[str, ...]
    """Some of those that have it."""
    found: str
    """What is wrong with it."""


@dataclass(frozen=True, kw_only=True)
class Scrubbed:
    """What a scrub has found."""

    blobs: int
    manifests: int
    read_bytes: int
    damage: tuple[Damage, ...]
    recovered: int
    """Blobs that were marked as damaged and are not, or no longer."""


class ReadingPace:
    """Holds a reader to so many bytes a second. Time that it did not use is not made up for later.

    Args:
        clock: Where it waits.
        bytes_per_s: How fast at most.
    """

    def __init__(self, clock: Clock, bytes_per_s: int) -> None:
        self._clock = clock
        self._bytes_per_s = bytes_per_s
        self._free_s = clock.monotonic_s()

    async def spend(self, size_bytes: int) -> None:
        """Count what was read, and wait until more may be."""
        now = self._clock.monotonic_s()
        self._free_s = max(now, self._free_s) + size_bytes / self._bytes_per_s
        await self._clock.sleep_s(self._free_s - now)


class Scrub:
    """One pass over the registry.

    Args:
        store: The tables.
        blobs: The storage.
        clock: Where the time of day is read.
        progress: Told after each blob how many bytes were read so far.
        bytes_per_s: How fast blobs are read at most, so that who pushes and pulls meanwhile has the storage; None for
            as fast as may be.
    """

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        clock: Clock,
        *,
        progress: Callable[[int], None] = lambda _bytes: None,
        bytes_per_s: int | None = None,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._clock = clock
        self._progress = progress
        self._pace = None if bytes_per_s is None else ReadingPace(clock, bytes_per_s)
        self._damage: list[Damage] = []
        self._blob_count = self._manifest_count = self._read_bytes = self._recovered = 0

    async def run(self) -> Scrubbed:
        """Read everything once; it may be pushed and pulled meanwhile.

        Raises:
            StoreUnavailable: The store or the storage is away.
        """
        await self._scrub_blobs()
        await self._scrub_manifests()
        return Scrubbed(
            blobs=self._blob_count,
            manifests=self._manifest_count,
            read_bytes=self._read_bytes,
            damage=tuple(self._damage),
            recovered=self._recovered,
        )

    async def _scrub_blobs(self) -> None:
        last: Digest | None = None
        while True:
            async with self._store.read() as connection:
                batch = await stored_blobs(connection, after=last, limit=_BATCH)
            for blob in batch:
                await self._scrub_blob(blob)
            if not batch:
                return
            last = batch[-1].digest

    async def _scrub_blob(self, blob: StoredBlob) -> None:
        found = await self._fault(blob)
        self._blob_count += 1
        self._read_bytes += blob.size_bytes
        self._progress(self._read_bytes)
        if found is None and blob.damaged is None:
            return
        since = None if found is None else blob.damaged or self._clock.now()
        if not await self._store.write(lambda connection: mark_blob(connection, blob, damaged=since)):
            # Deleted or repaired while it was read.
            return
        if found is None:
            self._recovered += 1
            return
        async with self._store.read() as connection:
            names = await names_of_blob(connection, blob.digest)
        self._damage.append(Damage(kind="blob", digest=blob.digest, repositories=names, found=found))

    async def _fault(self, blob: StoredBlob) -> str | None:
        async with self._store.read() as connection:
            parts = await find_parts(connection, content_id=blob.content_id)
        try:
            paced = None if self._pace is None else self._pace.spend
            digest = await digest_of(self._blobs, parts, blob.digest.algorithm, paced=paced)
        except NotFound:
            return "bytes are missing"
        return None if digest == blob.digest else "bytes are others"

    async def _scrub_manifests(self) -> None:
        last: StoredManifest | None = None
        while True:
            async with self._store.read() as connection:
                batch = await stored_manifests(connection, after=last, limit=_MANIFESTS_AT_ONCE)
            for manifest in batch:
                await self._scrub_manifest(manifest)
            if not batch:
                return
            last = batch[-1]

    async def _scrub_manifest(self, manifest: StoredManifest) -> None:
        self._manifest_count += 1
        self._read_bytes += len(manifest.content)
        if Digest.of(manifest.content, manifest.digest.algorithm) == manifest.digest:
            return
        async with self._store.read() as connection:
            name = await name_of_repository(connection, manifest.repository_id)
        damage = Damage(kind="manifest", digest=manifest.digest, repositories=(name,), found="bytes are others")
        self._damage.append(damage)
