"""Contents of the registry: sequences of parts, each an object of the storage under a key that is used once.

A key is never written twice, so nothing that is stored is ever overwritten, whoever writes at the same time. What
becomes of a content is a matter of rows alone: an upload's becomes a blob's without a byte being moved.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from metalmark.model import new_id
from metalmark.store.tables import registry_contents, registry_parts

REGISTRY_PREFIX = "registry"
"""Of the keys of all parts."""


@dataclass(frozen=True, kw_only=True)
class ContentPart:
    """An object of the storage, and where it is in its content."""

    id: UUID
    position: int
    """Offset of its first byte."""
    size_bytes: int

    @property
    def key(self) -> str:
        """Where it is in the storage."""
        return part_key(self.id)

    @property
    def end(self) -> int:
        """Offset of the byte after it."""
        return self.position + self.size_bytes


def part_key(part: UUID) -> str:
    """Return the key of a part in the storage."""
    # The last digits are random, the first ones the time: folders fill evenly.
    return f"{REGISTRY_PREFIX}/{part.hex[-2:]}/{part}"


async def create_content(connection: AsyncConnection, *, now: datetime, parts: Sequence[ContentPart] = ()) -> UUID:
    """Make a content of parts that are stored; something has to refer to it before the write ends."""
    identifier = new_id()
    size_bytes = sum(part.size_bytes for part in parts)
    values = {"id": identifier, "size_bytes": size_bytes, "created": now}
    await connection.execute(insert(registry_contents).values(**values))
    await _insert_parts(connection, identifier, parts)
    return identifier


async def append_part(connection: AsyncConnection, *, content_id: UUID, part: ContentPart) -> bool:
    """Add a part to the end of a content; return False when its end is elsewhere by now, or it is gone."""
    at_end = (registry_contents.c.id == content_id) & (registry_contents.c.size_bytes == part.position)
    longer = update(registry_contents).where(at_end).values(size_bytes=part.end)
    if (await connection.execute(longer)).rowcount != 1:
        return False
    await _insert_parts(connection, content_id, (part,))
    return True


async def _insert_parts(connection: AsyncConnection, content_id: UUID, parts: Sequence[ContentPart]) -> None:
    rows = [
        {"id": part.id, "content_id": content_id, "position": part.position, "size_bytes": part.size_bytes}
        for part in parts
    ]
    if rows:
        await connection.execute(insert(registry_parts), rows)


async def find_parts(connection: AsyncConnection, *, content_id: UUID) -> tuple[ContentPart, ...]:
    """Return the parts of a content in their order."""
    query = select(registry_parts).where(registry_parts.c.content_id == content_id).order_by(registry_parts.c.position)
    rows = await connection.execute(query)
    return tuple(ContentPart(id=row.id, position=row.position, size_bytes=row.size_bytes) for row in rows)


async def known_parts(connection: AsyncConnection, *, ids: Sequence[UUID]) -> frozenset[UUID]:
    """Return which of these parts the tables have; at most a few hundred at once."""
    query = select(registry_parts.c.id).where(registry_parts.c.id.in_(ids))
    return frozenset((await connection.execute(query)).scalars())


async def condemn_content(connection: AsyncConnection, *, content_id: UUID, now: datetime) -> None:
    """Note that nothing refers to a content any more."""
    there = (registry_contents.c.id == content_id) & registry_contents.c.condemned.is_(None)
    await connection.execute(update(registry_contents).where(there).values(condemned=now))


async def condemned_contents(connection: AsyncConnection, *, before: datetime, most: int) -> tuple[UUID, ...]:
    """Return contents that were condemned before a time, the first ones first."""
    condemned = registry_contents.c.condemned
    query = select(registry_contents.c.id).where(condemned.is_not(None), condemned <= before).order_by(condemned)
    return tuple((await connection.execute(query.limit(most))).scalars())


async def drop_contents(connection: AsyncConnection, *, ids: Collection[UUID]) -> None:
    """Forget condemned contents; their objects were deleted before."""
    condemned = registry_contents.c.condemned.is_not(None)
    await connection.execute(delete(registry_contents).where(registry_contents.c.id.in_(ids), condemned))
