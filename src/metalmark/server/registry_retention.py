"""Old images of the registry: what the configured rules do not keep goes, unless a job has still to run it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import structlog

from metalmark.model import MetalmarkError
from metalmark.server.registry_lease import lease_of
from metalmark.store import Connection, delete_manifests, delete_old_tags, forsaken_manifests, images_of_jobs

if TYPE_CHECKING:
    from metalmark.server.context import ServerContext

EVERY_S = 600.0
_UNTAGGED = timedelta(days=1)
"""How long a manifest without a tag is kept where no rule names days."""
_log = structlog.get_logger(__name__)


class RegistryRetention:
    """Applies `registry.keep_tags` and `registry.keep_days`. Any number of processes may do so at once.

    A tag goes first. The manifest that it stood for goes no earlier than two turns later, and only if nothing has come
    to need it in between: a job that looked the tag up just before is in the store by then.
    """

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._seen: frozenset[tuple[UUID, str]] = frozenset()

    async def run(self) -> None:
        """Take turns until canceled; return at once where there is no rule."""
        registry = self._context.config.registry
        if registry.keep_tags is None and registry.keep_days is None:
            return
        while True:
            await self._context.clock.sleep_s(EVERY_S)
            try:
                await self.turn()
            except MetalmarkError as error:
                _log.warning("old images not looked for", error=str(error))
            except Exception as error:  # noqa: BLE001 - the next turn may go well, and a server does not end of one
                _log.error("old images not looked for", exc_info=error)

    async def turn(self) -> tuple[int, int]:
        """Take one turn, and return how many tags and how many manifests went.

        Raises:
            StoreUnavailable: The store is away.
        """
        context, registry = self._context, self._context.config.registry
        now = context.clock.now()
        age = _UNTAGGED if registry.keep_days is None else timedelta(days=registry.keep_days)
        before = None if registry.keep_days is None else now - age
        untouched = now - max(age, lease_of(registry))

        async def work(connection: Connection) -> tuple[int, int, frozenset[tuple[UUID, str]]]:
            used = await images_of_jobs(connection)
            # Looked for before tags go: what has had one until now was perhaps looked up by it a moment ago.
            forsaken = await forsaken_manifests(connection, before=untouched, used=used)
            tags = await delete_old_tags(connection, keep=registry.keep_tags, before=before, used=used)
            manifests = await delete_manifests(connection, forsaken & self._seen, now=now)
            return tags, manifests, forsaken

        tags, manifests, forsaken = await context.store.write(work)
        self._seen = forsaken
        if tags or manifests:
            _log.info("old images deleted", tags=tags, manifests=manifests)
        return tags, manifests
