"""Specs: what hardware jobs may ask for. At most one is the fallback of jobs that name none."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from metalmark.model import Conflict, Demand, ResourceId, ResourceName, Slug, new_id, slug_for
from metalmark.store.changes import archived_at, given
from metalmark.store.notices import Notice, NoticeKind, announce
from metalmark.store.page import Page
from metalmark.store.selection import EVERYTHING, Selection, is_called, selected_rows
from metalmark.store.slugs import insert_with_slug
from metalmark.store.tables import jobs, runner_specs, specs, testbeds


@dataclass(frozen=True, kw_only=True)
class SpecRecord:
    """A spec."""

    id: UUID
    name: ResourceName
    slug: Slug
    demand: Demand
    """What it asks of a machine; it never changes."""
    anonymous: bool
    """Whether jobs of strangers may run on it, where the server takes any."""
    fallback: datetime | None
    """Since when it is the one that jobs without a spec get; None when it is not."""
    created: datetime
    modified: datetime
    archived: datetime | None


@dataclass(frozen=True, kw_only=True)
class SpecChanges:
    """What of a spec is to be different; None leaves a field."""

    name: ResourceName | None = None
    slug: Slug | None = None
    fallback: bool | None = None
    anonymous: bool | None = None
    archived: bool | None = None


def spec_of(row: Row[Any]) -> SpecRecord:
    """Return the spec of a row that has all of the table's columns."""
    return SpecRecord(
        id=row.id,
        name=ResourceName(row.name),
        slug=Slug(row.slug),
        demand=Demand(
            os=row.os,
            architecture=row.architecture,
            sandbox=row.sandbox,
            vcpus=row.vcpus,
            memory_bytes=row.memory_bytes,
            disk_bytes=row.disk_bytes,
            network=row.network,
        ),
        anonymous=row.anonymous,
        fallback=row.fallback,
        created=row.created,
        modified=row.modified,
        archived=row.archived,
    )


async def create_spec(
    connection: AsyncConnection,
    *,
    name: ResourceName,
    demand: Demand,
    now: datetime,
    slug: Slug | None = None,
    fallback: bool = False,
    anonymous: bool = False,
) -> SpecRecord:
    """Make a spec; its slug gets a suffix where it is taken. As the fallback it takes the place of another."""
    if fallback:
        await _clear_fallback(connection)
    values = {
        "id": new_id(),
        "name": name,
        "os": demand.os,
        "architecture": demand.architecture,
        "sandbox": demand.sandbox,
        "vcpus": demand.vcpus,
        "memory_bytes": demand.memory_bytes,
        "disk_bytes": demand.disk_bytes,
        "network": demand.network,
        "anonymous": anonymous,
        "fallback": now if fallback else None,
        "created": now,
        "modified": now,
    }
    got = await insert_with_slug(connection, specs, slug=slug_for(name, slug), values=values)
    return spec_of((await connection.execute(select(specs).where(specs.c.slug == got))).one())


async def find_spec(connection: AsyncConnection, identifier: ResourceId) -> SpecRecord | None:
    """Return the spec of a UUID or slug, archived ones too."""
    named = is_called(specs, identifier)
    row = (await connection.execute(select(specs).where(named))).one_or_none()
    return None if row is None else spec_of(row)


async def find_fallback_spec(connection: AsyncConnection) -> SpecRecord | None:
    """Return the spec of jobs that name none; an archived one is none."""
    query = select(specs).where(specs.c.fallback.is_not(None), specs.c.archived.is_(None))
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else spec_of(row)


async def list_specs(
    connection: AsyncConnection, *, page: Page, archived: bool = False, wanted: Selection = EVERYTHING
) -> tuple[tuple[SpecRecord, ...], int]:
    """Return a page of specs, archived ones too if wanted, and how many match."""
    query = select(specs) if archived else select(specs).where(specs.c.archived.is_(None))
    rows, total = await selected_rows(connection, query, specs, wanted, page)
    return tuple(spec_of(row) for row in rows), total


async def update_spec(
    connection: AsyncConnection, *, spec_id: UUID, changes: SpecChanges, now: datetime
) -> SpecRecord | None:
    """Change a spec, and return what it is then; None when there is none.

    Archiving takes the fallback's place from it, and takes it off every testbed. Coming back restores neither.

    Raises:
        Conflict: The slug is taken.
    """
    values = given(name=changes.name, slug=changes.slug, anonymous=changes.anonymous)
    values |= archived_at(now, archived=changes.archived)
    if changes.archived:
        values["fallback"] = None
        await connection.execute(update(testbeds).where(testbeds.c.spec_id == spec_id).values(spec_id=None))
    elif changes.fallback is not None:
        if changes.fallback and await _exists(connection, spec_id):
            await _clear_fallback(connection)
        values["fallback"] = now if changes.fallback else None
    changed = update(specs).where(specs.c.id == spec_id).values(**values, modified=now).returning(specs)
    row = (await connection.execute(changed)).one_or_none()
    if row is None:
        return None
    if changes.archived is False or changes.anonymous:
        # Jobs that were submitted before may be claimed now, and nobody announces those a second time.
        announce(connection, Notice(kind=NoticeKind.SPEC_CHANGED, subject=spec_id))
    return spec_of(row)


async def delete_spec(connection: AsyncConnection, *, spec_id: UUID) -> bool:
    """Delete a spec that nothing needs; return whether it was there. Testbeds and reports forget it.

    Raises:
        Conflict: A runner serves it, or a job asks for it.
    """
    for table, what in ((runner_specs, "runner"), (jobs, "job")):
        used = await connection.execute(select(table.c.spec_id).where(table.c.spec_id == spec_id).limit(1))
        if used.first() is not None:
            raise Conflict(f"a {what} has this spec", field="spec", hint="archive it instead")
    return (await connection.execute(delete(specs).where(specs.c.id == spec_id))).rowcount > 0


async def _exists(connection: AsyncConnection, spec_id: UUID) -> bool:
    return (await connection.execute(select(specs.c.id).where(specs.c.id == spec_id))).first() is not None


async def _clear_fallback(connection: AsyncConnection) -> None:
    await connection.execute(update(specs).where(specs.c.fallback.is_not(None)).values(fallback=None))
