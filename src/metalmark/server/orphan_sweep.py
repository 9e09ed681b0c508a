"""Blobs that nothing refers to: written before a transaction that never came to its end, deleted long after it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import structlog

from metalmark.model import MetalmarkError
from metalmark.store import REGISTRY_PREFIX, database_mark, find_blob_owners, known_parts

if TYPE_CHECKING:
    from metalmark.server.context import ServerContext

FIRST_S = 900.0
EVERY_S = 86_400.0
KEPT = timedelta(days=7)
"""How long blobs stay without an owner: a database that is put back for an afternoon must not cost its successor's."""
UNFINISHED_KEPT = timedelta(days=1)
"""How long a file stays that is being written; each piece that comes makes it new."""
_MARKS = "database"
_log = structlog.get_logger(__name__)


class OrphanSweep:
    """Deletes them once a day. Any number of processes may do so at once.

    A storage that two databases share is left alone: what one of them does not know may be the other's.
    """

    def __init__(self, context: ServerContext) -> None:
        self._context = context

    async def run(self) -> None:
        """Sweep until canceled."""
        wait_s = FIRST_S
        while True:
            await self._context.clock.sleep_s(wait_s)
            wait_s = EVERY_S
            try:
                await self.sweep()
            except MetalmarkError as error:
                _log.warning("orphans not swept", error=str(error))
            except Exception as error:  # noqa: BLE001 - the next sweep may go well, and a server does not end of one
                _log.error("orphans not swept", exc_info=error)

    async def sweep(self) -> int:
        """Sweep once, and return how many blobs were deleted.

        Raises:
            StoreUnavailable: The store or the storage is away.
        """
        cut_off = await self._context.blobs.drop_unfinished(self._context.clock.now() - UNFINISHED_KEPT)
        if cut_off:
            _log.info("files swept whose writing was cut off", count=cut_off)
        if not await self._is_ours_alone():
            return 0
        before = self._context.clock.now() - KEPT
        deleted = 0
        for prefix in ("results", "outputs", REGISTRY_PREFIX):
            async for keys in self._context.blobs.older(prefix, before):
                orphans = await self._orphans(prefix, keys)
                await self._context.blobs.delete(*orphans)
                deleted += len(orphans)
        if deleted:
            _log.info("orphans swept", count=deleted)
        return deleted

    async def _is_ours_alone(self) -> bool:
        async with self._context.store.read() as connection:
            ours = f"{_MARKS}/{await database_mark(connection)}"
        marks = {mark.key for mark in await self._context.blobs.below(_MARKS)}
        if ours not in marks:
            await self._context.blobs.put(ours, b"")
        if marks - {ours}:
            _log.warning("storage is shared with another database", marks=sorted(marks))
        # Whoever else is new here has until the next sweep to say so.
        return marks == {ours}

    async def _orphans(self, prefix: str, keys: Sequence[str]) -> list[str]:
        owners = {key: owner for key in keys if (owner := _owner_of(key)) is not None}
        ids = sorted(set(owners.values()))
        async with self._context.store.read() as connection:
            if prefix == REGISTRY_PREFIX:
                known = await known_parts(connection, ids=ids)
                return [key for key, part in owners.items() if part not in known]
            if prefix == "results":
                found = await find_blob_owners(connection, report_ids=ids)
            else:
                found = await find_blob_owners(connection, job_ids=ids)
        return [key for key, owner in owners.items() if key not in found.keys and owner not in found.active_jobs]


def _owner_of(key: str) -> UUID | None:
    """Return what a blob was written for: report, job, or part of an image; None for what no release of ours wrote."""
    try:
        match key.split("/"):
            case ["results", name]:
                return UUID(name.removesuffix(".json"))
            case ["outputs", _, job, _]:
                return UUID(job)
            case [prefix, _, part] if prefix == REGISTRY_PREFIX:
                return UUID(part)
    except ValueError:
        return None
    return None
