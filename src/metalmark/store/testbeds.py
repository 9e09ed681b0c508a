"""Testbeds: where a project measures, each with the spec that its jobs last ran on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, and_, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from metalmark.model import Conflict, NotFound, ResourceName, Slug, new_id, slug_for
from metalmark.store.changes import archived_at, given
from metalmark.store.page import Page
from metalmark.store.selection import EVERYTHING, Selection, is_called, selected_rows
from metalmark.store.slugs import insert_with_slug
from metalmark.store.tables import reports, testbeds


@dataclass(frozen=True, kw_only=True)
class TestbedRecord:
    """A testbed."""

    # Its name begins as test classes do; pytest is not to collect it.
    __test__ = False

    id: UUID
    project_id: UUID
    name: ResourceName
    slug: Slug
    spec_id: UUID | None
    """What jobs on it run on when they name no spec."""
    created: datetime
    modified: datetime
    archived: datetime | None


@dataclass(frozen=True, kw_only=True)
class TestbedChanges:
    """What of a testbed is to be different; None leaves a field."""

    __test__ = False

    name: ResourceName | None = None
    slug: Slug | None = None
    spec_id: UUID | None = None
    clear_spec: bool = False
    """The testbed has no spec any more."""
    archived: bool | None = None


def _testbed(row: Row[Any]) -> TestbedRecord:
    return TestbedRecord(
        id=row.id,
        project_id=row.project_id,
        name=ResourceName(row.name),
        slug=Slug(row.slug),
        spec_id=row.spec_id,
        created=row.created,
        modified=row.modified,
        archived=row.archived,
    )


async def find_testbed(
    connection: AsyncConnection, *, project_id: UUID, identifier: UUID | Slug | ResourceName
) -> TestbedRecord | None:
    """Return the testbed of a UUID, slug or name, archived or not. What is no slug is a name."""
    named = is_called(testbeds, identifier)
    query = select(testbeds).where(and_(testbeds.c.project_id == project_id, named))
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _testbed(row)


async def list_testbeds(
    connection: AsyncConnection,
    *,
    page: Page,
    project_id: UUID,
    archived: bool = False,
    wanted: Selection = EVERYTHING,
) -> tuple[tuple[TestbedRecord, ...], int]:
    """Return a page of a project's testbeds, archived ones or the others, and how many match."""
    query = select(testbeds).where(testbeds.c.project_id == project_id)
    query = query.where(testbeds.c.archived.is_not(None) if archived else testbeds.c.archived.is_(None))
    rows, total = await selected_rows(connection, query, testbeds, wanted, page)
    return tuple(_testbed(row) for row in rows), total


async def create_testbed(
    connection: AsyncConnection,
    *,
    project_id: UUID,
    name: ResourceName,
    slug: Slug | None = None,
    spec_id: UUID | None = None,
    now: datetime,
) -> TestbedRecord:
    """Make a testbed.

    Raises:
        Conflict: The project has a testbed of this name.
    """
    taken = select(testbeds.c.id).where(and_(testbeds.c.project_id == project_id, testbeds.c.name == name))
    # Looked for first: PostgreSQL then takes a race for one, and the write is tried again.
    if (await connection.execute(taken)).first() is not None:
        raise Conflict(f"the project has a testbed {str(name)!r}", field="name")
    identifier = new_id()
    values = {"id": identifier, "project_id": project_id, "name": name, "spec_id": spec_id}
    values |= {"created": now, "modified": now}
    got = await insert_with_slug(connection, testbeds, slug=slug_for(name, slug), values=values, scope="project_id")
    return TestbedRecord(
        id=identifier,
        project_id=project_id,
        name=name,
        slug=got,
        spec_id=spec_id,
        created=now,
        modified=now,
        archived=None,
    )


async def update_testbed(
    connection: AsyncConnection, *, testbed_id: UUID, changes: TestbedChanges, now: datetime
) -> TestbedRecord | None:
    """Change a testbed, and return what it is then; None when there is none.

    Raises:
        Conflict: The name or slug is taken.
    """
    values = given(name=changes.name, slug=changes.slug, spec_id=changes.spec_id)
    values |= archived_at(now, archived=changes.archived)
    if changes.clear_spec:
        values["spec_id"] = changes.spec_id
    changed = update(testbeds).where(testbeds.c.id == testbed_id).values(**values, modified=now).returning(*testbeds.c)
    row = (await connection.execute(changed)).one_or_none()
    return None if row is None else _testbed(row)


async def delete_testbed(connection: AsyncConnection, *, testbed_id: UUID) -> bool:
    """Delete a testbed.

    Returns:
        Whether there was one.

    Raises:
        Conflict: There are reports of it.
    """
    on_it = select(reports.c.id).where(reports.c.testbed_id == testbed_id).limit(1)
    if (await connection.execute(on_it)).first() is not None:
        raise Conflict("the testbed has reports", why="they would lose it", hint="delete them first, or archive it")
    return (await connection.execute(delete(testbeds).where(testbeds.c.id == testbed_id))).rowcount > 0


async def find_testbed_of_run(
    connection: AsyncConnection, *, project_id: UUID, identifier: UUID | Slug | ResourceName
) -> TestbedRecord | None:
    """Return the testbed that a run means. What has the form of a slug may be a name whose testbed got another slug."""
    found = await find_testbed(connection, project_id=project_id, identifier=identifier)
    if found is None and isinstance(identifier, Slug):
        return await find_testbed(connection, project_id=project_id, identifier=ResourceName(identifier))
    return found


async def testbed_for_run(
    connection: AsyncConnection,
    *,
    project_id: UUID,
    identifier: UUID | Slug | ResourceName,
    spec_id: UUID | None = None,
    clear_spec: bool = False,
    now: datetime,
) -> TestbedRecord:
    """Return the testbed that a run is on: made if there is none of this name, taken out of the archive if it is there.

    Args:
        connection: Of a write.
        project_id: Whose.
        identifier: As the run names it.
        spec_id: The spec that the testbed has from now on; None leaves it.
        clear_spec: It has none from now on.
        now: The time of day.

    Raises:
        NotFound: The testbed is named by a UUID, and there is none.
    """
    found = await find_testbed_of_run(connection, project_id=project_id, identifier=identifier)
    if found is None:
        if isinstance(identifier, UUID):
            raise NotFound("testbed", identifier)
        slug = identifier if isinstance(identifier, Slug) else None
        name = ResourceName(identifier)
        return await create_testbed(connection, project_id=project_id, name=name, slug=slug, spec_id=spec_id, now=now)
    other = spec_id is not None and spec_id != found.spec_id
    cleared = clear_spec and found.spec_id is not None
    if other or cleared or found.archived is not None:
        archived = None if found.archived is None else False
        changes = TestbedChanges(spec_id=spec_id, clear_spec=cleared, archived=archived)
        return await update_testbed(connection, testbed_id=found.id, changes=changes, now=now) or found
    return found
