"""What jobs leave of their output that nobody needs any more: live output once it is old, uploads that nobody ended."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import structlog

from metalmark.model import MetalmarkError
from metalmark.store import Connection, drop_old_output, find_job

if TYPE_CHECKING:
    from metalmark.server.context import ServerContext

EVERY_S = 600.0
KEPT = timedelta(hours=1)
"""How long followers can still read live output after the job's end; after that there is its final output."""
_BATCH = 100
_log = structlog.get_logger(__name__)


class OutputSweep:
    """Deletes it, now and then. Any number of processes may do so at once."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context

    async def run(self) -> None:
        """Sweep until canceled."""
        while True:
            await self._context.clock.sleep_s(EVERY_S)
            try:
                await self.sweep()
            except MetalmarkError as error:
                _log.warning("output not swept", error=str(error))
            except Exception as error:  # noqa: BLE001 - the next sweep may go well, and a server does not end of one
                _log.error("output not swept", exc_info=error)

    async def sweep(self) -> None:
        """Sweep once.

        Raises:
            StoreUnavailable: The store or the storage is away.
        """
        before = self._context.clock.now() - KEPT

        async def work(connection: Connection) -> int:
            return await drop_old_output(connection, before=before, most=_BATCH)

        while await self._context.store.write(work) == _BATCH:
            pass
        await self._forget_uploads()

    async def _forget_uploads(self) -> None:
        parts: dict[str, list[str]] = {}
        for part in await self._context.blobs.below("uploads"):
            parts.setdefault(part.key.split("/")[1], []).append(part.key)
        for name, keys in parts.items():
            try:
                job = UUID(name)
            except ValueError:
                # No release of ours wrote it, so it is somebody else's.
                continue
            async with self._context.store.read() as connection:
                found = await find_job(connection, job)
            # A job that failed for want of news may still be completed, but not by what its runner began long ago.
            if found is None or not found.status.is_active:
                await self._context.blobs.delete(*keys)
