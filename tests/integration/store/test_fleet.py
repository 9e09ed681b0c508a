"""Specs and runners in the store, on both engines: the one fallback, archiving, keys, searches, proofs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select

from metalmark.model import Capabilities, Conflict, Demand, ResourceName, Slug, new_id
from metalmark.store import (
    ALL,
    Connection,
    NoticeKind,
    Page,
    RunnerChanges,
    RunnerProof,
    RunnerRecord,
    SpecChanges,
    SpecRecord,
    Store,
    add_runner_spec,
    create_runner,
    create_spec,
    delete_spec,
    find_fallback_spec,
    find_proof,
    find_runner,
    find_runner_by_key,
    find_spec,
    list_runner_specs,
    list_runners,
    list_specs,
    record_proof,
    remove_runner_spec,
    rotate_runner_key,
    update_runner,
    update_spec,
)
from metalmark.store.selection import ListOrder, Selection
from metalmark.store.tables import organizations, projects, testbeds

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 31, 9, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
DEMAND = Demand(
    os="linux",
    architecture="x86_64",
    sandbox="qemu",
    vcpus=2**31 - 1,
    memory_bytes=2**63 - 1,
    disk_bytes=1,
    network=True,
)


async def spec(store: Store, name: str, *, at: datetime = NOW, **options: Any) -> SpecRecord:
    async def work(connection: Connection) -> SpecRecord:
        return await create_spec(connection, name=ResourceName.parse(name), demand=DEMAND, now=at, **options)

    return await store.write(work)


async def runner(store: Store, name: str, *, at: datetime = NOW, **options: Any) -> RunnerRecord:
    async def work(connection: Connection) -> RunnerRecord:
        digest = options.pop("key_digest", f"digest of {name}")
        return await create_runner(connection, name=ResourceName.parse(name), key_digest=digest, now=at, **options)

    return await store.write(work)


async def change(store: Store, of: SpecRecord, **changes: Any) -> SpecRecord | None:
    async def work(connection: Connection) -> SpecRecord | None:
        return await update_spec(connection, spec_id=of.id, changes=SpecChanges(**changes), now=LATER)

    return await store.write(work)


async def fallbacks(store: Store) -> list[str]:
    async with store.read() as connection:
        found, _ = await list_specs(connection, page=ALL, archived=True)
    return [each.slug for each in found if each.fallback is not None]


async def test_a_spec_comes_back_as_it_was_made(store: Store) -> None:
    made = await spec(store, "Small VM", anonymous=True, fallback=True)
    assert (made.slug, made.demand, made.anonymous, made.fallback) == ("small-vm", DEMAND, True, NOW)
    async with store.read() as connection:
        assert await find_spec(connection, made.id) == made
        assert await find_spec(connection, made.slug) == made
        assert await find_spec(connection, new_id()) is None


async def test_a_taken_slug_gets_a_suffix_at_first_and_is_refused_later(store: Store) -> None:
    first = await spec(store, "Small VM")
    second = await spec(store, "Other", slug=first.slug)
    assert second.slug.startswith("small-vm-")
    with pytest.raises(Conflict) as caught:
        await change(store, second, slug=first.slug)
    assert caught.value.field == "slug"
    async with store.read() as connection:
        assert await find_spec(connection, second.slug) == second


async def test_the_fallback_is_one_and_goes_from_spec_to_spec(store: Store) -> None:
    one, two = await spec(store, "One", fallback=True), await spec(store, "Two", fallback=True)
    assert await fallbacks(store) == ["two"]
    await change(store, one, fallback=True)
    assert await fallbacks(store) == ["one"]
    await change(store, one, fallback=False)
    assert await fallbacks(store) == []
    # One that is not there takes it from nobody.
    await change(store, two, fallback=True)

    async def missing(connection: Connection) -> object:
        return await update_spec(connection, spec_id=new_id(), changes=SpecChanges(fallback=True), now=NOW)

    assert await store.write(missing) is None
    assert await fallbacks(store) == ["two"]


async def test_archiving_ends_the_fallback_and_takes_nobody_elses(store: Store) -> None:
    one, two = await spec(store, "One", fallback=True), await spec(store, "Two")
    archived = await change(store, two, archived=True, fallback=True)
    assert archived is not None
    assert (archived.archived, archived.fallback, archived.modified) == (LATER, None, LATER)
    assert await fallbacks(store) == ["one"]
    assert (await change(store, one, archived=True)) is not None
    assert await fallbacks(store) == []
    back = await change(store, one, archived=False)
    assert back is not None
    assert (back.archived, back.fallback) == (None, None)


async def test_an_archived_spec_can_have_the_flag_and_is_not_used(store: Store) -> None:
    one = await spec(store, "One", fallback=True)
    two = await spec(store, "Two")
    await change(store, two, archived=True)
    await change(store, two, fallback=True)
    assert await fallbacks(store) == ["two"]
    async with store.read() as connection:
        assert await find_fallback_spec(connection) is None
    await change(store, one, fallback=True)
    async with store.read() as connection:
        found = await find_fallback_spec(connection)
    assert found is not None
    assert found.id == one.id


async def test_writers_that_want_the_fallback_at_once_leave_one(store: Store) -> None:
    made = [await spec(store, f"Spec {number}") for number in range(5)]
    async with anyio.create_task_group() as tasks:
        for each in made:
            tasks.start_soon(lambda each=each: change(store, each, fallback=True))
    assert len(await fallbacks(store)) == 1


async def test_archiving_takes_a_spec_off_its_testbeds(store: Store) -> None:
    one, two = await spec(store, "One"), await spec(store, "Two")
    common = {"created": NOW, "modified": NOW}
    project = new_id()

    async def fill(connection: Connection) -> None:
        values = {"id": project, "name": "P", "slug": "p", **common}
        await connection.execute(insert(organizations).values(**values))
        await connection.execute(insert(projects).values(**values, organization_id=project, visibility="public"))
        for name, has in (("a", one), ("b", two)):
            beds = {"id": new_id(), "project_id": project, "name": name, "slug": name, "spec_id": has.id, **common}
            await connection.execute(insert(testbeds).values(**beds))

    await store.write(fill)
    await change(store, one, archived=True)
    async with store.read() as connection:
        found = (await connection.execute(select(testbeds.c.spec_id).order_by(testbeds.c.name))).scalars().all()
    assert list(found) == [None, two.id]

    async def delete(connection: Connection) -> bool:
        return await delete_spec(connection, spec_id=two.id)

    assert await store.write(delete)
    async with store.read() as connection:
        assert set((await connection.execute(select(testbeds.c.spec_id))).scalars()) == {None}


async def test_a_spec_that_a_runner_serves_stays(store: Store) -> None:
    served, machine = await spec(store, "One"), await runner(store, "Rack 7")

    async def add(connection: Connection) -> None:
        await add_runner_spec(connection, runner_id=machine.id, spec_id=served.id, now=NOW)

    async def remove(connection: Connection) -> bool:
        return await remove_runner_spec(connection, runner_id=machine.id, spec_id=served.id)

    async def delete(connection: Connection) -> bool:
        return await delete_spec(connection, spec_id=served.id)

    await store.write(add)
    with pytest.raises(Conflict):
        await store.write(add)
    with pytest.raises(Conflict):
        await store.write(delete)
    assert [await store.write(remove), await store.write(remove)] == [True, False]
    assert [await store.write(delete), await store.write(delete)] == [True, False]


async def test_the_specs_of_a_runner_come_in_the_order_they_were_added(store: Store) -> None:
    machine = await runner(store, "Rack 7")
    made = [await spec(store, name) for name in ("b", "a", "c")]
    order = [made[2], made[0], made[1]]

    async def add(connection: Connection) -> None:
        for number, each in enumerate(order):
            at = NOW + timedelta(seconds=number)
            await add_runner_spec(connection, runner_id=machine.id, spec_id=each.id, now=at)

    with store.notices.subscribe([NoticeKind.RUNNER_CHANGED], subject=machine.id) as told:
        await store.write(add)
        with anyio.fail_after(30):
            await anext(told)
    await change(store, made[2], archived=True)
    async with store.read() as connection:
        assert [each.id for each in await list_runner_specs(connection, runner_id=machine.id)] == [
            each.id for each in order
        ]
        found = await find_runner(connection, machine.slug)
        listed, _ = await list_runners(connection, page=ALL)
    assert found is not None
    assert found.spec_ids == tuple(each.id for each in order)
    assert listed == (found,)


async def test_a_runners_slug_is_never_changed_to_make_it_free(store: Store) -> None:
    await runner(store, "Rack 7")
    with pytest.raises(Conflict) as caught:
        await runner(store, "rack-7", key_digest="another")
    assert caught.value.field == "slug"
    odd = await runner(store, "???")
    async with store.read() as connection:
        assert await find_runner(connection, odd.id) == odd


async def test_a_key_opens_until_it_is_rotated_or_its_runner_archived(store: Store) -> None:
    machine = await runner(store, "Rack 7", key_digest="old")

    async def rotate(connection: Connection) -> RunnerRecord | None:
        return await rotate_runner_key(connection, runner_id=machine.id, key_digest="new", now=LATER)

    async def archive(connection: Connection, *, archived: bool) -> RunnerRecord | None:
        changes = RunnerChanges(archived=archived)
        return await update_runner(connection, runner_id=machine.id, changes=changes, now=LATER)

    async def opens(digest: str) -> bool:
        async with store.read() as connection:
            return await find_runner_by_key(connection, digest) is not None

    assert await opens("old")
    rotated = await store.write(rotate)
    assert rotated is not None
    assert rotated.modified == LATER
    assert [await opens("old"), await opens("new")] == [False, True]
    await store.write(lambda connection: archive(connection, archived=True))
    assert not await opens("new")
    with pytest.raises(Conflict):
        await store.write(rotate)
    await store.write(lambda connection: archive(connection, archived=False))
    assert await opens("new")


async def test_lists_are_sorted_paged_and_counted(store: Store) -> None:
    for number, name in enumerate(("b", "a", "c", "a")):
        await spec(store, name, at=NOW + timedelta(minutes=number))

    async def names(page: Page, **options: Any) -> tuple[list[str], int]:
        async with store.read() as connection:
            found, total = await list_specs(connection, page=page, wanted=Selection(**options))
        return [each.name for each in found], total

    assert await names(ALL) == (["a", "a", "b", "c"], 4)
    assert await names(ALL, descending=True) == (["c", "b", "a", "a"], 4)
    assert await names(ALL, order=ListOrder.CREATED, descending=True) == (["a", "c", "a", "b"], 4)
    assert await names(Page(limit=2, offset=1)) == (["a", "b"], 4)
    assert await names(Page(limit=0)) == ([], 4)
    assert await names(Page(limit=255, offset=255 * (2**32 - 1))) == ([], 4)
    assert await names(ALL, name="a") == (["a", "a"], 2)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("rack", ["Rack 7", "rack_8"]),
        ("RACK", ["Rack 7", "rack_8"]),
        ("k-7", ["Rack 7"]),
        ("k_", ["Rack 7", "rack_8"]),
        ("%", ["Rack 7", "rack_8", "ünï\\code"]),
        ("\\", ["ünï\\code"]),
        ("\\code", ["ünï\\code"]),
        ("\x00", []),
        ("'; DROP TABLE runners; --", []),
        ("", ["Rack 7", "rack_8", "ünï\\code"]),
    ],
)
async def test_a_search_finds_parts_of_names_and_slugs(store: Store, text: str, found: list[str]) -> None:
    for name in ("Rack 7", "rack_8", "ünï\\code"):
        await runner(store, name)
    async with store.read() as connection:
        listed, total = await list_runners(connection, page=ALL, wanted=Selection(search=text))
    assert ([each.name for each in listed], total) == (found, len(found))


async def test_a_search_finds_a_hyphenated_identifier(store: Store) -> None:
    wanted, _ = await runner(store, "one"), await runner(store, "two")
    part = str(wanted.id)[-20:]
    async with store.read() as connection:
        for text in (str(wanted.id), part, part.upper()):
            listed, _ = await list_runners(connection, page=ALL, wanted=Selection(search=text))
            assert [each.id for each in listed] == [wanted.id]


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=20, max_size=40))
def test_no_search_breaks_the_query(database_url: str, texts: list[str]) -> None:
    async def search() -> None:
        async with await Store.open(database_url, migrated=False) as store, store.read() as connection:
            for text in texts:
                assert await list_runners(connection, page=ALL, wanted=Selection(search=text)) == ((), 0)

    # An event loop of its own, as hypothesis has none.
    anyio.run(search)


async def test_a_proof_is_kept_and_replaced(store: Store) -> None:
    machine = await runner(store, "Rack 7")
    first = RunnerProof(
        capabilities=Capabilities(os="linux", sandboxes=frozenset({"qemu", ""}), memory_bytes=2**40),
        proved=NOW,
        version="1.2.3",
        protocol="metalmark.1",
        facts={"cpu": "a\x00b", "cores": [1, 2]},
    )
    second = RunnerProof(capabilities=Capabilities(public=True), proved=LATER)

    async def keep(connection: Connection, proof: RunnerProof) -> None:
        await record_proof(connection, runner_id=machine.id, proof=proof)

    async with store.read() as connection:
        assert await find_proof(connection, runner_id=machine.id) is None
    for proof in (first, second):
        await store.write(lambda connection, proof=proof: keep(connection, proof))  # type: ignore[misc]
        async with store.read() as connection:
            assert await find_proof(connection, runner_id=machine.id) == proof


async def test_a_slug_that_was_asked_for_is_kept(store: Store) -> None:
    made = await runner(store, "Rack 7", slug=Slug.parse("mine"))
    assert made.slug == "mine"
