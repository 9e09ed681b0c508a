"""Repositories of the registry: names within a project, each with its blobs, manifests and tags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Table, and_, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from metalmark.model import NotFound, new_id
from metalmark.store.tables import projects, registry_manifests, registry_repositories, registry_tags


@dataclass(frozen=True, kw_only=True)
class RepositoryPlace:
    """Where something of the registry is looked for."""

    project_id: UUID
    inner: str = ""
    """The repository's name within the project; empty for the project's own."""
    whole_project: bool = False
    """Whether it may be in any repository of the project."""

    def includes(self) -> ColumnElement[bool]:
        """Return the condition that a row of `registry_repositories` is in this place."""
        of_project = registry_repositories.c.project_id == self.project_id
        return of_project if self.whole_project else and_(of_project, registry_repositories.c.inner == self.inner)


@dataclass(frozen=True, kw_only=True)
class RepositoryRecord:
    """A repository that has manifests."""

    id: UUID
    inner: str
    """Its name within the project; empty for the project's own."""
    tags: int
    manifests: int
    pushed: datetime | None
    """When a tag of it was last set."""


@dataclass(frozen=True, kw_only=True)
class RepositoryOwner:
    """A repository, and whose it is."""

    id: UUID
    project_id: UUID


async def repositories_in_turn(
    connection: AsyncConnection, *, after: UUID | None, limit: int
) -> tuple[RepositoryOwner, ...]:
    """Return repositories of all projects in the order of their identifiers, those that come after one."""
    repositories = registry_repositories
    query = select(repositories.c.id, repositories.c.project_id).order_by(repositories.c.id).limit(limit)
    if after is not None:
        query = query.where(repositories.c.id > after)
    return tuple(RepositoryOwner(id=row.id, project_id=row.project_id) for row in await connection.execute(query))


async def ensure_repository(connection: AsyncConnection, place: RepositoryPlace, *, now: datetime) -> UUID:
    """Return a repository's identifier, and make it when it is not there.

    Raises:
        NotFound: Its project is gone: deleted, perhaps softly, since the push began.
    """
    found = await find_repository_id(connection, place)
    if found is not None:
        return found
    owner = select(projects.c.id).where(projects.c.id == place.project_id, projects.c.deleted.is_(None))
    if (await connection.execute(owner)).one_or_none() is None:
        raise NotFound("project", place.project_id)
    new = {"id": new_id(), "project_id": place.project_id, "inner": place.inner, "created": now}
    await insert_unless_there(connection, registry_repositories, new)
    made = await find_repository_id(connection, place)
    assert made is not None, "it was inserted in this transaction"
    return made


async def find_repository_id(connection: AsyncConnection, place: RepositoryPlace) -> UUID | None:
    """Return the identifier of the one repository of a place's name; None when nothing was ever pushed there."""
    query = select(registry_repositories.c.id).where(
        registry_repositories.c.project_id == place.project_id, registry_repositories.c.inner == place.inner
    )
    return (await connection.execute(query)).scalar_one_or_none()


async def list_repositories(connection: AsyncConnection, *, project_id: UUID) -> tuple[RepositoryRecord, ...]:
    """Return the repositories of a project that have manifests, by name."""
    manifests, tags, repositories = registry_manifests, registry_tags, registry_repositories
    counts = [
        select(func.count()).where(table.c.repository_id == repositories.c.id).scalar_subquery()
        for table in (tags, manifests)
    ]
    last = select(func.max(tags.c.pushed)).where(tags.c.repository_id == repositories.c.id).scalar_subquery()
    columns = (repositories.c.id, repositories.c.inner, counts[0].label("tags"), counts[1].label("manifests"))
    query = select(*columns, last.label("pushed")).where(repositories.c.project_id == project_id)
    rows = await connection.execute(query.order_by(repositories.c.inner))
    return tuple(
        RepositoryRecord(id=row.id, inner=row.inner, tags=row.tags, manifests=row.manifests, pushed=row.pushed)
        for row in rows
        if row.manifests
    )


def _insert(connection: AsyncConnection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Return an insertion of this engine's own kind, which can say what becomes of a key that is there."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


async def insert_unless_there(connection: AsyncConnection, table: Table, *rows: Mapping[str, Any]) -> None:
    """Insert rows, passing over those whose key is there."""
    if rows:
        await connection.execute(_insert(connection, table).on_conflict_do_nothing(), [dict(row) for row in rows])


async def insert_if_new(connection: AsyncConnection, table: Table, row: Mapping[str, Any]) -> bool:
    """Insert a row, unless its key is there; return whether it was not."""
    # What came back, for the number of rows of an insertion is not told by every driver.
    new = _insert(connection, table).values(**row).on_conflict_do_nothing().returning(*table.primary_key.columns)
    return (await connection.execute(new)).one_or_none() is not None


async def insert_or_change(
    connection: AsyncConnection,
    table: Table,
    key: tuple[str, ...],
    row: Mapping[str, Any],
    *,
    kept: tuple[str, ...] = (),
) -> None:
    """Insert a row, or give the one that has its key the other values.

    Args:
        connection: Of a write.
        table: Where.
        key: Columns of its primary key.
        row: All values.
        kept: Columns whose value stays when the row is there.
    """
    changed = {name: value for name, value in row.items() if name not in key and name not in kept}
    new = _insert(connection, table).values(**row)
    await connection.execute(new.on_conflict_do_update(index_elements=list(key), set_=changed))
