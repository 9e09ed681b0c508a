"""Old images of the registry: what the configured rules do not keep goes, unless a job has still to run it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import structlog

from metalmark.model import MetalmarkError
from metalmark.server.registry_lease import lease_of
from metalmark.store import (
    Connection,
    RepositoryOwner,
    delete_manifests,
    delete_tags,
    forsaken_manifests,
    images_of_jobs,
    old_tags,
    repositories_in_turn,
)

if TYPE_CHECKING:
    from metalmark.server.context import ServerContext

EVERY_S = 600.0
_AT_ONCE = 100
_UNTAGGED = timedelta(days=1)
"""How long a manifest without a tag is kept where no rule names days."""
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What of a repository no rule keeps, and how much of it went."""

    old: tuple[tuple[str, str], ...]
    """Tags, and what they stand for."""
    forsaken: frozenset[str]
    """Digests of manifests."""
    tags: int = 0
    manifests: int = 0


class RegistryRetention:
    """Applies `registry.keep_tags` and `registry.keep_days`. Any number of processes may do so at once.

    A tag goes first. The manifest that it stood for goes no earlier than two turns later, and only if nothing has come
    to need it in between: a job that looked the tag up just before is in the store by then.
    """

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._seen: dict[UUID, frozenset[str]] = {}
        """What was forsaken in the last turn, by repository."""

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
        """Take one turn through all repositories, and return how many tags and how many manifests went.

        Raises:
            StoreUnavailable: The store is away.
        """
        tags = manifests = 0
        seen: dict[UUID, frozenset[str]] = {}
        after: UUID | None = None
        while owners := await self._next(after):
            for owner in owners:
                found = await self._of_repository(owner)
                tags, manifests = tags + found.tags, manifests + found.manifests
                if found.forsaken:
                    seen[owner.id] = found.forsaken
            after = owners[-1].id
        self._seen = seen
        if tags or manifests:
            _log.info("old images deleted", tags=tags, manifests=manifests)
        return tags, manifests

    async def _next(self, after: UUID | None) -> tuple[RepositoryOwner, ...]:
        async with self._context.store.read() as connection:
            return await repositories_in_turn(connection, after=after, limit=_AT_ONCE)

    async def _of_repository(self, owner: RepositoryOwner) -> _Found:
        async with self._context.store.read() as connection:
            found = await self._look(connection, owner)
        if not found.old and not found.forsaken & self._seen.get(owner.id, frozenset()):
            # Which is how almost all of them are, and no write waits for that.
            return found
        now = self._context.clock.now()

        async def work(connection: Connection) -> _Found:
            # Looked for before tags go: what has had one until now was perhaps looked up by a job a moment ago.
            found = await self._look(connection, owner)
            gone = found.forsaken & self._seen.get(owner.id, frozenset())
            return _Found(
                old=(),
                tags=await delete_tags(connection, repository_id=owner.id, gone=found.old),
                manifests=await delete_manifests(connection, repository_id=owner.id, gone=gone, now=now),
                forsaken=found.forsaken,
            )

        return await self._context.store.write(work)

    async def _look(self, connection: Connection, owner: RepositoryOwner) -> _Found:
        registry, now = self._context.config.registry, self._context.clock.now()
        age = _UNTAGGED if registry.keep_days is None else timedelta(days=registry.keep_days)
        before = None if registry.keep_days is None else now - age
        untouched = now - max(age, lease_of(registry))
        used = await images_of_jobs(connection, project_id=owner.project_id)
        forsaken = await forsaken_manifests(connection, repository_id=owner.id, before=untouched)
        old = await old_tags(connection, repository_id=owner.id, keep=registry.keep_tags, before=before)
        return _Found(old=tuple(tag for tag in old if tag[1] not in used), forsaken=forsaken - used)
