"""Heads and versions: the lines of history of a branch, and the points on them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, and_, delete, func, insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from metalmark.model import GitHash, new_id
from metalmark.store.tables import head_versions, heads, reports, versions


@dataclass(frozen=True, kw_only=True)
class VersionRecord:
    """A version. It may be on several heads."""

    id: UUID
    number: int
    """Its place along the head, counted from 0."""
    hash: GitHash | None


@dataclass(frozen=True, kw_only=True)
class StartPoint:
    """A version of a head, where another head begins."""

    branch_id: UUID
    head_id: UUID
    version: VersionRecord


@dataclass(frozen=True, kw_only=True)
class HeadRecord:
    """A head."""

    id: UUID
    branch_id: UUID
    start_point: StartPoint | None
    """None also once the version it began at is deleted."""
    created: datetime
    replaced: datetime | None
    """When another head took its place; None for the current one."""


_start_heads = heads.alias("start_heads")
HEAD_COLUMNS = (
    heads.c.id.label("head_id"),
    heads.c.branch_id.label("head_branch_id"),
    heads.c.created.label("head_created"),
    heads.c.replaced.label("head_replaced"),
    _start_heads.c.id.label("start_head_id"),
    _start_heads.c.branch_id.label("start_branch_id"),
    versions.c.id.label("start_version_id"),
    versions.c.number.label("start_number"),
    versions.c.hash.label("start_hash"),
)
"""What `head_of` reads, of `HEADS`."""
HEADS = heads.outerjoin(_start_heads, _start_heads.c.id == heads.c.start_head_id).outerjoin(
    versions, versions.c.id == heads.c.start_version_id
)


def head_of(row: Row[Any]) -> HeadRecord:
    """Return the head of a row that has `HEAD_COLUMNS`."""
    start = None
    if row.start_head_id is not None and row.start_version_id is not None:
        version = version_of(row.start_version_id, row.start_number, row.start_hash)
        start = StartPoint(branch_id=row.start_branch_id, head_id=row.start_head_id, version=version)
    return HeadRecord(
        id=row.head_id,
        branch_id=row.head_branch_id,
        start_point=start,
        created=row.head_created,
        replaced=row.head_replaced,
    )


def version_of(identifier: UUID, number: int, text: str | None) -> VersionRecord:
    """Return the version of a row's values."""
    return VersionRecord(id=identifier, number=number, hash=None if text is None else GitHash(text))


async def find_head(connection: AsyncConnection, *, branch_id: UUID, head_id: UUID | None = None) -> HeadRecord | None:
    """Return a head of a branch, the current one unless another is named."""
    wanted = heads.c.replaced.is_(None) if head_id is None else heads.c.id == head_id
    query: Select[Any] = select(*HEAD_COLUMNS).select_from(HEADS).where(and_(heads.c.branch_id == branch_id, wanted))
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else head_of(row)


async def find_start_point(
    connection: AsyncConnection,
    *,
    branch_id: UUID,
    hash: GitHash | None = None,  # noqa: A002  the field's name
) -> StartPoint | None:
    """Return where a head that starts from a branch begins.

    Args:
        connection: Of any transaction.
        branch_id: The branch; its current head counts.
        hash: The commit wanted; the latest version of that commit, or the latest of all when there is none.

    Returns:
        None when the branch has no version yet.
    """
    head = await find_head(connection, branch_id=branch_id)
    if head is None:
        return None
    query = (
        select(versions.c.id, versions.c.number, versions.c.hash)
        .join(head_versions, head_versions.c.version_id == versions.c.id)
        .where(head_versions.c.head_id == head.id)
        .order_by(versions.c.number.desc())
        .limit(1)
    )
    row = None
    if hash is not None:
        row = (await connection.execute(query.where(versions.c.hash == hash))).one_or_none()
    if row is None:
        row = (await connection.execute(query)).one_or_none()
    if row is None:
        return None
    return StartPoint(branch_id=branch_id, head_id=head.id, version=version_of(row.id, row.number, row.hash))


async def begin_head(
    connection: AsyncConnection, *, branch_id: UUID, start: StartPoint | None, max_versions: int, now: datetime
) -> HeadRecord:
    """Give a branch a new current head, and let it share the versions up to where it starts.

    Args:
        connection: Of a write.
        branch_id: The branch; its current head, if it has one, is replaced.
        start: Where the head begins; None for an empty one.
        max_versions: How many versions it takes over at most, the latest first.
        now: The time of day.
    """
    current = and_(heads.c.branch_id == branch_id, heads.c.replaced.is_(None))
    await connection.execute(update(heads).where(current).values(replaced=now))
    identifier = new_id()
    values = {"id": identifier, "branch_id": branch_id, "created": now}
    if start is not None:
        values |= {"start_head_id": start.head_id, "start_version_id": start.version.id}
    await connection.execute(insert(heads).values(**values))
    if start is not None and max_versions > 0:
        shared = (
            select(literal(identifier, heads.c.id.type), versions.c.id)
            .join(head_versions, head_versions.c.version_id == versions.c.id)
            .where(and_(head_versions.c.head_id == start.head_id, versions.c.number <= start.version.number))
            .order_by(versions.c.number.desc())
            # More than a database counts to is as many as there are.
            .limit(min(max_versions, 2**31 - 1))
        )
        await connection.execute(insert(head_versions).from_select(["head_id", "version_id"], shared))
    return HeadRecord(id=identifier, branch_id=branch_id, start_point=start, created=now, replaced=None)


async def version_for_report(
    connection: AsyncConnection,
    *,
    project_id: UUID,
    head_id: UUID,
    hash: GitHash | None,  # noqa: A002  the field's name
) -> VersionRecord:
    """Return the version that a new report on a head belongs to, made if there is none.

    A commit that a report on this very head has had before keeps its version; every other report begins the next one.
    """
    if hash is not None:
        used = select(reports.c.id).where(and_(reports.c.head_id == head_id, reports.c.version_id == versions.c.id))
        query = (
            select(versions.c.id, versions.c.number, versions.c.hash)
            .join(head_versions, head_versions.c.version_id == versions.c.id)
            .where(and_(head_versions.c.head_id == head_id, versions.c.hash == hash, used.exists()))
            .order_by(versions.c.number.desc())
            .limit(1)
        )
        row = (await connection.execute(query)).one_or_none()
        if row is not None:
            return version_of(row.id, row.number, row.hash)
    highest = (
        select(func.max(versions.c.number))
        .join(head_versions, head_versions.c.version_id == versions.c.id)
        .where(head_versions.c.head_id == head_id)
    )
    last = (await connection.execute(highest)).scalar_one()
    version = VersionRecord(id=new_id(), number=0 if last is None else last + 1, hash=hash)
    values = {"id": version.id, "project_id": project_id, "number": version.number, "hash": hash}
    await connection.execute(insert(versions).values(**values))
    await connection.execute(insert(head_versions).values(head_id=head_id, version_id=version.id))
    return version


async def drop_unused_version(connection: AsyncConnection, version: VersionRecord) -> None:
    """Delete a version that no report uses, and close the gap: what is above it on its heads moves down by one."""
    used = select(reports.c.id).where(reports.c.version_id == version.id).limit(1)
    if (await connection.execute(used)).first() is not None:
        return
    on_heads = select(head_versions.c.head_id).where(head_versions.c.version_id == version.id)
    above = select(head_versions.c.version_id).where(head_versions.c.head_id.in_(on_heads))
    await connection.execute(
        update(versions)
        .where(and_(versions.c.id.in_(above), versions.c.number > version.number))
        .values(number=versions.c.number - 1)
    )
    await connection.execute(delete(versions).where(versions.c.id == version.id))
