"""Taking all that projects have in the registry from it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from metalmark.store.registry_blobs import loosen_blobs
from metalmark.store.tables import (
    registry_blobs,
    registry_contents,
    registry_links,
    registry_repositories,
    registry_uploads,
)


async def release_images(connection: AsyncConnection, *, project_ids: Sequence[UUID], now: datetime) -> None:
    """Delete the repositories of projects with all that is in them; collections delete the bytes.

    Args:
        connection: Of a write.
        project_ids: The projects; at most a few hundred.
        now: The time of day.
    """
    repositories, contents = registry_repositories, registry_contents
    ids = select(repositories.c.id).where(repositories.c.project_id.in_(project_ids))
    # Rows go with their repositories; what they leave has to be known to collections, which read no whole tables.
    linked = select(registry_links.c.digest).where(registry_links.c.repository_id.in_(ids))
    await loosen_blobs(connection, registry_blobs.c.digest.in_(linked), now=now)
    begun = select(registry_uploads.c.content_id).where(registry_uploads.c.repository_id.in_(ids))
    forsaken = contents.c.id.in_(begun) & contents.c.condemned.is_(None)
    await connection.execute(update(contents).where(forsaken).values(condemned=now))
    await connection.execute(delete(repositories).where(repositories.c.project_id.in_(project_ids)))
