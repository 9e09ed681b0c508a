"""Branches: what a project measures, each with one head that is current."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, and_, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from metalmark.model import BranchName, Conflict, Slug, new_id, slug_for
from metalmark.store.changes import archived_at, given
from metalmark.store.heads import HEAD_COLUMNS, HEADS, HeadRecord, StartPoint, begin_head, find_head, head_of
from metalmark.store.page import Page
from metalmark.store.selection import EVERYTHING, Selection, is_called, selected_rows
from metalmark.store.slugs import insert_with_slug
from metalmark.store.tables import branches, heads, reports


@dataclass(frozen=True, kw_only=True)
class BranchRecord:
    """A branch, with its current head unless another was asked for."""

    id: UUID
    project_id: UUID
    name: BranchName
    slug: Slug
    head: HeadRecord
    created: datetime
    modified: datetime
    archived: datetime | None


@dataclass(frozen=True, kw_only=True)
class BranchChanges:
    """What of a branch is to be different; None leaves a field."""

    name: BranchName | None = None
    slug: Slug | None = None
    archived: bool | None = None


def branch_of(row: Row[Any]) -> BranchRecord:
    """Return the branch of a row that has the table's columns and those of a head."""
    return BranchRecord(
        id=row.id,
        project_id=row.project_id,
        name=BranchName(row.name),
        slug=Slug(row.slug),
        head=head_of(row),
        created=row.created,
        modified=row.modified,
        archived=row.archived,
    )


_current = and_(heads.c.branch_id == branches.c.id, heads.c.replaced.is_(None))
_branches: Select[Any] = select(*branches.c, *HEAD_COLUMNS).select_from(branches.join(HEADS, _current))


async def find_branch(
    connection: AsyncConnection, *, project_id: UUID, identifier: UUID | Slug | BranchName
) -> BranchRecord | None:
    """Return the branch of a UUID, slug or name, archived or not. What is no slug is a name."""
    named = is_called(branches, identifier)
    row = (await connection.execute(_branches.where(and_(branches.c.project_id == project_id, named)))).one_or_none()
    return None if row is None else branch_of(row)


async def find_branch_at(
    connection: AsyncConnection, *, project_id: UUID, identifier: UUID | Slug, head_id: UUID | None
) -> BranchRecord | None:
    """Return a branch with one of its heads, the current one when None; None when the head is not its own."""
    found = await find_branch(connection, project_id=project_id, identifier=identifier)
    if found is None or head_id is None or found.head.id == head_id:
        return found
    head = await find_head(connection, branch_id=found.id, head_id=head_id)
    if head is None:
        return None
    fields = {name: getattr(found, name) for name in found.__dataclass_fields__}
    return BranchRecord(**{**fields, "head": head})


async def list_branches(
    connection: AsyncConnection,
    *,
    page: Page,
    project_id: UUID,
    archived: bool = False,
    wanted: Selection = EVERYTHING,
) -> tuple[tuple[BranchRecord, ...], int]:
    """Return a page of a project's branches, archived ones or the others, and how many match."""
    query = _branches.where(branches.c.project_id == project_id)
    query = query.where(branches.c.archived.is_not(None) if archived else branches.c.archived.is_(None))
    rows, total = await selected_rows(connection, query, branches, wanted, page)
    return tuple(branch_of(row) for row in rows), total


async def create_branch(
    connection: AsyncConnection,
    *,
    project_id: UUID,
    name: BranchName,
    slug: Slug | None = None,
    start: StartPoint | None = None,
    max_versions: int = 0,
    now: datetime,
) -> BranchRecord:
    """Make a branch with its first head.

    Raises:
        Conflict: The project has a branch of this name.
    """
    taken = select(branches.c.id).where(and_(branches.c.project_id == project_id, branches.c.name == name))
    # Looked for first: PostgreSQL then takes a race for one, and the write is tried again.
    if (await connection.execute(taken)).first() is not None:
        raise Conflict(f"the project has a branch {str(name)!r}", field="name")
    identifier = new_id()
    values = {"id": identifier, "project_id": project_id, "name": name, "created": now, "modified": now}
    got = await insert_with_slug(connection, branches, slug=slug_for(name, slug), values=values, scope="project_id")
    head = await begin_head(connection, branch_id=identifier, start=start, max_versions=max_versions, now=now)
    return BranchRecord(
        id=identifier, project_id=project_id, name=name, slug=got, head=head, created=now, modified=now, archived=None
    )


async def update_branch(
    connection: AsyncConnection, *, branch_id: UUID, changes: BranchChanges, now: datetime
) -> BranchRecord | None:
    """Change a branch, and return what it is then; None when there is none.

    Raises:
        Conflict: The name or slug is taken.
    """
    values = given(name=changes.name, slug=changes.slug) | archived_at(now, archived=changes.archived)
    await connection.execute(update(branches).where(branches.c.id == branch_id).values(**values, modified=now))
    row = (await connection.execute(_branches.where(branches.c.id == branch_id))).one_or_none()
    return None if row is None else branch_of(row)


async def delete_branch(connection: AsyncConnection, *, branch_id: UUID) -> bool:
    """Delete a branch with its heads.

    Returns:
        Whether there was one.

    Raises:
        Conflict: There are reports on it.
    """
    on_it = select(reports.c.id).join(heads, heads.c.id == reports.c.head_id).where(heads.c.branch_id == branch_id)
    if (await connection.execute(on_it.limit(1))).first() is not None:
        raise Conflict("the branch has reports", why="they would lose it", hint="delete them first, or archive it")
    return (await connection.execute(delete(branches).where(branches.c.id == branch_id))).rowcount > 0
