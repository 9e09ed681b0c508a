"""Updates of the runner's program that the operator published: for each kind of runner the one that it should have.

The content is a blob by its checksum; a row names it for one audience, channel and architecture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Row, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from metalmark.model import new_id
from metalmark.store.notices import Notice, NoticeKind, announce
from metalmark.store.tables import updates


class UpdateAudience(StrEnum):
    """Whom an update is for."""

    METALMARK = "metalmark"
    """Our own runners: an artifact of wheels."""
    PUBLIC = "public"
    """Public runners: a program that replaces theirs."""


@dataclass(frozen=True, kw_only=True)
class PublishedUpdate:
    """What runners of one kind should have."""

    audience: UpdateAudience
    channel: str
    """``stable`` or ``canary``."""
    architecture: str
    version: str
    checksum: str
    """SHA-256 of the content, lower-case hex."""
    size_bytes: int
    published: datetime

    @property
    def key(self) -> str:
        """Where the content is among the blobs."""
        return update_key(self.checksum)


def update_key(checksum: str) -> str:
    """Return the key of an update's content among the blobs."""
    return f"updates/{checksum}"


async def publish_updates(connection: AsyncConnection, published: Sequence[PublishedUpdate]) -> None:
    """Publish updates, each in place of the one that runners of its kind had so far."""
    for update in published:
        await connection.execute(
            delete(updates).where(
                updates.c.audience == update.audience,
                updates.c.channel == update.channel,
                updates.c.architecture == update.architecture,
            )
        )
        await connection.execute(
            insert(updates).values(
                id=new_id(),
                audience=update.audience,
                channel=update.channel,
                architecture=update.architecture,
                version=update.version,
                checksum=update.checksum,
                size_bytes=update.size_bytes,
                created=update.published,
            )
        )
    announce(connection, Notice(kind=NoticeKind.UPDATE_PUBLISHED))


async def withdraw_updates(connection: AsyncConnection, checksum: str) -> int:
    """Withdraw an update from whoever it is for, and return how many kinds of runners that were."""
    result = await connection.execute(delete(updates).where(updates.c.checksum == checksum))
    return result.rowcount


async def list_updates(connection: AsyncConnection) -> tuple[PublishedUpdate, ...]:
    """Return all that is published."""
    query = select(updates).order_by(updates.c.audience, updates.c.channel, updates.c.architecture)
    return tuple(_update(row) for row in await connection.execute(query))


async def find_update(
    connection: AsyncConnection, *, audience: UpdateAudience, architecture: str, channel: str = "stable"
) -> PublishedUpdate | None:
    """Return what runners of a kind should have; None when nothing is published for them."""
    query = select(updates).where(
        updates.c.audience == audience, updates.c.channel == channel, updates.c.architecture == architecture
    )
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _update(row)


async def find_update_by_checksum(connection: AsyncConnection, checksum: str) -> PublishedUpdate | None:
    """Return a published update by its content."""
    query = select(updates).where(updates.c.checksum == checksum).limit(1)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _update(row)


def _update(row: Row[Any]) -> PublishedUpdate:
    return PublishedUpdate(
        audience=UpdateAudience(row.audience),
        channel=row.channel,
        architecture=row.architecture,
        version=row.version,
        checksum=row.checksum,
        size_bytes=row.size_bytes,
        published=row.created,
    )
