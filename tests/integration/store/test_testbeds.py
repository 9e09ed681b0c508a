"""Testbeds on both engines."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import anyio
import pytest
from tests.integration.store.job_floor import Floor

from metalmark.model import Conflict, NotFound, ResourceName, Slug, new_id
from metalmark.store import (
    Connection,
    Page,
    SpecChanges,
    Store,
    TestbedChanges,
    TestbedRecord,
    create_testbed,
    delete_testbed,
    find_testbed,
    list_testbeds,
    testbed_for_run,
    update_spec,
    update_testbed,
)

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 31, 9, 15, tzinfo=UTC)
LATER = NOW + timedelta(seconds=1)
RACK = ResourceName("Rack 7")
# Those of the store begin as tests do.
for_run = testbed_for_run
for_run.__test__ = False  # type: ignore[attr-defined]  # read by pytest


@pytest.fixture
async def floor(store: Store) -> Floor:
    made = Floor(store=store, now=NOW)
    await made.lay()
    return made


async def run_on(floor: Floor, identifier: UUID | Slug | ResourceName, **more: Any) -> TestbedRecord:
    async def work(connection: Connection) -> TestbedRecord:
        return await for_run(connection, project_id=floor.project, identifier=identifier, now=LATER, **more)

    return await floor.store.write(work)


async def change(floor: Floor, testbed: UUID, **changes: Any) -> TestbedRecord:
    async def work(connection: Connection) -> TestbedRecord | None:
        return await update_testbed(connection, testbed_id=testbed, changes=TestbedChanges(**changes), now=LATER)

    changed = await floor.store.write(work)
    assert changed is not None
    return changed


async def test_a_run_makes_its_testbed_once(floor: Floor) -> None:
    made = await run_on(floor, RACK)
    assert (made.name, made.slug, made.spec_id) == ("Rack 7", "rack-7", None)
    assert await run_on(floor, RACK) == made
    assert await run_on(floor, Slug("rack-7")) == made
    with pytest.raises(NotFound):
        await run_on(floor, new_id())


async def test_a_testbed_remembers_a_spec_until_it_is_cleared(floor: Floor) -> None:
    one, two = await floor.spec("one"), await floor.spec("two")
    assert (await run_on(floor, RACK, spec_id=one)).spec_id == one
    assert (await run_on(floor, RACK)).spec_id == one
    assert (await run_on(floor, RACK, spec_id=two)).spec_id == two
    assert (await run_on(floor, RACK, clear_spec=True)).spec_id is None


async def test_an_archived_spec_is_remembered_no_more(floor: Floor) -> None:
    spec = await floor.spec("one")
    await run_on(floor, RACK, spec_id=spec)

    async def archive(connection: Connection) -> None:
        await update_spec(connection, spec_id=spec, changes=SpecChanges(archived=True), now=NOW)

    await floor.store.write(archive)
    assert (await run_on(floor, RACK)).spec_id is None


async def test_a_run_takes_a_testbed_out_of_the_archive(floor: Floor) -> None:
    spec = await floor.spec("one")
    made = await run_on(floor, RACK, spec_id=spec)
    assert (await change(floor, made.id, archived=True)).archived == LATER
    async with floor.store.read() as connection:
        active, total = await list_testbeds(connection, page=Page(limit=10), project_id=floor.project)
        assert ([one.name for one in active], total) == (["rack"], 1)
    again = await run_on(floor, RACK)
    assert (again.archived, again.spec_id) == (None, spec)


async def test_a_change_leaves_what_it_does_not_name(floor: Floor) -> None:
    spec = await floor.spec("one")
    made = await run_on(floor, RACK, spec_id=spec)
    changed = await change(floor, made.id, name=ResourceName("Rack 8"))
    assert (changed.name, changed.slug, changed.spec_id, changed.modified) == ("Rack 8", "rack-7", spec, LATER)
    assert (await change(floor, made.id, clear_spec=True)).spec_id is None
    for taken in ({"name": ResourceName("rack")}, {"slug": Slug("rack")}):
        with pytest.raises(Conflict):
            await change(floor, made.id, **taken)

    async def twin(connection: Connection) -> TestbedRecord:
        return await create_testbed(connection, project_id=floor.project, name=ResourceName("rack"), now=NOW)

    with pytest.raises(Conflict):
        await floor.store.write(twin)


async def test_a_testbed_with_reports_is_kept(floor: Floor) -> None:
    spec = await floor.spec("one")
    await floor.job(spec)

    async def drop(connection: Connection) -> bool:
        return await delete_testbed(connection, testbed_id=floor.testbed)

    with pytest.raises(Conflict):
        await floor.store.write(drop)
    made = await run_on(floor, RACK)

    async def drop_other(connection: Connection) -> bool:
        return await delete_testbed(connection, testbed_id=made.id)

    assert await floor.store.write(drop_other)
    async with floor.store.read() as connection:
        assert await find_testbed(connection, project_id=floor.project, identifier=made.id) is None
        # Another project's is none of this one's.
        assert await find_testbed(connection, project_id=new_id(), identifier=floor.testbed) is None


async def test_runs_at_once_make_one_testbed(floor: Floor) -> None:
    found: set[UUID] = set()

    async def run() -> None:
        found.add((await run_on(floor, RACK)).id)

    async with anyio.create_task_group() as group:
        for _ in range(12):
            group.start_soon(run)
    assert len(found) == 1
