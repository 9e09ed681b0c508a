"""Collection of what the registry does not need any more, beside whatever is pushed and pulled meanwhile.

Uploads that lie still end; blobs that no manifest names leave their repositories once their lease is over; blobs that
are in no repository go. Rows go first, each step in one transaction with what it was decided by. Bytes go some time
after the last row that referred to them, so that whoever is reading them comes to the end; since a key of the storage
is never used twice, nobody can have begun to need them again.

What has not changed since it was last looked at is not looked at: a collection costs what was pushed and deleted,
however much there is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from metalmark.model import MetalmarkError, TransientError
from metalmark.server.config import RegistrySection
from metalmark.store import (
    Blobs,
    Connection,
    Store,
    Swept,
    condemned_contents,
    drop_contents,
    drop_unlinked,
    expire_uploads,
    find_parts,
    unlink_unused,
)
from metalmark.system import Clock

if TYPE_CHECKING:
    from metalmark.server.context import ServerContext

_BATCH = 100
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What a collection took away."""

    uploads: int
    """Uploads that lay still."""
    unlinked: int
    """Blobs that left a repository."""
    blobs: int
    """Blobs that were in no repository any more."""
    deleted_bytes: int
    """Bytes that the storage has no more."""

    @property
    def is_nothing(self) -> bool:
        """Whether there was nothing to do."""
        return not (self.uploads or self.unlinked or self.blobs or self.deleted_bytes)


async def collect(store: Store, blobs: Blobs, clock: Clock, rules: RegistrySection) -> Collected:
    """Collect once. Any number of processes may do so at once.

    Args:
        store: The tables.
        blobs: The storage.
        clock: Where the time of day is read.
        rules: How long what is kept.

    Raises:
        StoreUnavailable: The store or the storage is away; what was done stays done.
    """
    now = clock.now()
    lease, still = timedelta(seconds=rules.lease_s), timedelta(seconds=rules.upload_timeout_s)
    uploads = await _all(store, lambda c: expire_uploads(c, before=now - still, now=now, most=_BATCH))
    unlinked = await _all_swept(store, lambda c: unlink_unused(c, before=now - lease, now=now, most=_BATCH))
    gone = await _all_swept(store, lambda c: drop_unlinked(c, now=now, most=_BATCH))
    deleted = 0
    before = now - timedelta(seconds=rules.reading_s)
    while True:
        async with store.read() as connection:
            due = await condemned_contents(connection, before=before, most=_BATCH)
            parts = [part for content in due for part in await find_parts(connection, content_id=content)]
        if not due:
            return Collected(uploads=uploads, unlinked=unlinked, blobs=gone, deleted_bytes=deleted)
        await blobs.delete(*(part.key for part in parts))
        await store.write(lambda connection, due=due: drop_contents(connection, ids=due))  # type: ignore[misc]  # the default binds this turn's
        deleted += sum(part.size_bytes for part in parts)


async def _all(store: Store, step: Callable[[Connection], Awaitable[int]]) -> int:
    total = 0
    while found := await store.write(step):
        total += found
        if found < _BATCH:
            break
    return total


async def _all_swept(store: Store, step: Callable[[Connection], Awaitable[Swept]]) -> int:
    total = 0
    while True:
        swept = await store.write(step)
        total += swept.gone
        if swept.seen < _BATCH:
            return total


class RegistryCollector:
    """Collects now and then.

    Args:
        context: The server.
    """

    def __init__(self, context: ServerContext) -> None:
        self._context = context

    async def run(self) -> None:
        """Collect until canceled."""
        rules = self._context.config.registry
        while True:
            await self._context.clock.sleep_s(rules.collect_every_s)
            try:
                done = await collect(self._context.store, self._context.blobs, self._context.clock, rules)
            except MetalmarkError as error:
                _log.warning("registry not collected", error=str(error), transient=isinstance(error, TransientError))
            except Exception as error:  # noqa: BLE001 - the next collection may go well, and a server does not end of one
                _log.error("registry not collected", exc_info=error)
            else:
                if not done.is_nothing:
                    _log.info("registry collected", blobs=done.blobs, bytes=done.deleted_bytes, uploads=done.uploads)
