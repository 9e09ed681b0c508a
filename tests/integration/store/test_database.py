"""Reading and writing on both engines: what is kept apart, what is told, what is tried again."""

from __future__ import annotations

import stat
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import anyio
import pytest
from sqlalchemy import func, insert, select, text, update
from sqlalchemy.exc import DBAPIError

from metalmark.model import Conflict, InputError, NotFound, StableError, StoreAway, new_id
from metalmark.store import Connection, Isolation, Notice, NoticeKind, Pace, Store, announce, parse_database_url
from metalmark.store.columns import metadata
from metalmark.store.tables import runner_specs, runners, specs

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 31, 9, tzinfo=UTC)


def runner_values(slug: str, name: str = "Rack") -> dict[str, object]:
    common = {"key_created": NOW, "created": NOW, "modified": NOW}
    return {"id": new_id(), "name": name, "slug": slug, "key_hash": f"hash of {slug}", **common}


def adding(slug: str, notice: Notice | None = None) -> Callable[[Connection], Awaitable[str]]:
    async def work(connection: Connection) -> str:
        await connection.execute(insert(runners).values(**runner_values(slug)))
        if notice is not None:
            announce(connection, notice)
        return slug

    return work


async def slugs(store: Store) -> list[str]:
    async with store.read() as connection:
        return list((await connection.execute(select(runners.c.slug).order_by(runners.c.slug))).scalars())


async def test_a_write_returns_its_result_and_is_seen(store: Store) -> None:
    assert await store.write(adding("one")) == "one"
    assert await slugs(store) == ["one"]


async def test_a_work_that_fails_leaves_nothing(store: Store) -> None:
    async def work(connection: Connection) -> None:
        await adding("half")(connection)
        raise NotFound("spec", "gone")

    with pytest.raises(NotFound):
        await store.write(work)
    assert await slugs(store) == []


async def test_one_that_fails_among_many_fails_alone(store: Store) -> None:
    failed: list[str] = []

    async def one(number: int) -> None:
        try:
            # Each slug is asked for twice, so every other write of the group breaks a constraint.
            await store.write(adding(f"rack-{number // 2:03}"))
        except Conflict as error:
            failed.append(error.field)

    async with anyio.create_task_group() as tasks:
        for number in range(60):
            tasks.start_soon(one, number)
    assert await slugs(store) == [f"rack-{number:03}" for number in range(30)]
    assert len(failed) == 30
    # The identifier of the key is as unique as the slug, and either may be found first.
    assert set(failed) <= {"slug", "key_hash"}


async def test_a_bug_in_a_work_reaches_its_caller_only(store: Store) -> None:
    async def work(connection: Connection) -> None:
        await connection.execute(text("SELECT nothing FROM nowhere"))

    with pytest.raises(DBAPIError):
        await store.write(work)
    assert await store.write(adding("after")) == "after"


async def test_a_read_sees_one_state(store: Store) -> None:
    await store.write(adding("before"))
    count = select(func.count()).select_from(runners)
    async with store.read() as connection:
        assert (await connection.execute(count)).scalar_one() == 1
        await store.write(adding("meanwhile"))
        assert (await connection.execute(count)).scalar_one() == 1
    assert await slugs(store) == ["before", "meanwhile"]


async def test_a_read_cannot_write(store: Store) -> None:
    with pytest.raises((DBAPIError, StoreAway)):
        async with store.read() as connection:
            await connection.execute(insert(runners).values(**runner_values("sneaked")))
    assert await slugs(store) == []


async def test_writes_that_decide_by_what_they_read_come_one_after_the_other(store: Store) -> None:
    await store.write(adding("0"))

    async def count_up(connection: Connection) -> None:
        name = (await connection.execute(select(runners.c.slug))).scalar_one()
        await anyio.lowlevel.checkpoint()
        await connection.execute(update(runners).values(slug=str(int(name) + 1)))

    async with anyio.create_task_group() as tasks:
        for _ in range(12):
            tasks.start_soon(store.write, count_up)
    assert await slugs(store) == ["12"]


async def test_get_or_create_makes_one_of_a_kind(store: Store) -> None:
    found: list[UUID] = []

    async def get_or_create(connection: Connection) -> UUID:
        there = (await connection.execute(select(runners.c.id).where(runners.c.slug == "one"))).scalar_one_or_none()
        if there is not None:
            return there
        values = runner_values("one")
        await connection.execute(insert(runners).values(**values))
        return UUID(str(values["id"]))

    async def one() -> None:
        found.append(await store.write(get_or_create))

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(one)
    assert len(set(found)) == 1


async def test_a_weaker_isolation_is_enough_for_one_statement(store: Store) -> None:
    await store.write(adding("0"))

    async def rename(connection: Connection) -> int:
        changed = update(runners).where(runners.c.slug == "0").values(slug="1")
        return (await connection.execute(changed)).rowcount

    done: list[int] = []

    async def one() -> None:
        done.append(await store.write(rename, isolation=Isolation.READ_COMMITTED))

    async with anyio.create_task_group() as tasks:
        for _ in range(6):
            tasks.start_soon(one)
    assert sorted(done) == [0, 0, 0, 0, 0, 1]


async def test_a_broken_reference_is_a_conflict(store: Store) -> None:
    async def work(connection: Connection) -> None:
        await connection.execute(insert(runner_specs).values(runner_id=new_id(), spec_id=new_id(), created=NOW))

    with pytest.raises(Conflict):
        await store.write(work)


async def test_there_is_one_fallback_at_most_whatever_the_code_does(store: Store) -> None:
    async def two(connection: Connection) -> None:
        for slug in ("a", "b"):
            values = {"id": new_id(), "name": slug, "slug": slug, "os": "linux", "architecture": "x86_64"}
            sizes = {"vcpus": 1, "memory_bytes": 1, "disk_bytes": 2**63 - 1, "network": False, "anonymous": False}
            times = {"fallback": NOW, "created": NOW, "modified": NOW}
            await connection.execute(insert(specs).values(**values, **sizes, **times))

    with pytest.raises(Conflict) as caught:
        await store.write(two)
    assert "taken" in str(caught.value)


async def test_values_come_back_as_they_were(store: Store) -> None:
    instant = datetime(2026, 1, 31, 9, 8, 7, 654321, tzinfo=UTC)
    values = runner_values("ünïcode", name="Maschine % _ \\ ' \" 机") | {"last_heartbeat": instant}

    async def work(connection: Connection) -> None:
        await connection.execute(insert(runners).values(**values))

    await store.write(work)
    async with store.read() as connection:
        row = (await connection.execute(select(runners))).one()
    assert {name: getattr(row, name) for name in values} == values


async def test_text_sorts_alike_on_both_engines(store: Store) -> None:
    for name in ("b", "A", "a", "B", "ä", "-", "1"):
        await store.write(adding(name))
    assert await slugs(store) == ["-", "1", "A", "B", "a", "b", "ä"]


async def test_notices_come_after_the_commit_and_only_then(store: Store) -> None:
    notice = Notice(kind=NoticeKind.RUNNER_CHANGED, subject=new_id())
    lost = Notice(kind=NoticeKind.RUNNER_CHANGED, subject=new_id())

    async def fails(connection: Connection) -> None:
        announce(connection, lost)
        raise NotFound("runner", "x")

    with store.notices.subscribe([NoticeKind.RUNNER_CHANGED]) as subscription:
        with pytest.raises(NotFound):
            await store.write(fails)
        await store.write(adding("one", notice))
        with anyio.fail_after(30):
            assert await anext(subscription) == notice
        # Whoever is told finds it there.
        assert await slugs(store) == ["one"]
        assert subscription.take_waiting() == []


async def test_a_notice_reaches_every_process(database_url: str) -> None:
    if database_url.startswith("sqlite"):
        pytest.skip("SQLite has one process")
    notice = Notice(kind=NoticeKind.UPDATE_PUBLISHED)
    async with await Store.open(database_url) as one, await Store.open(database_url) as other:
        with other.notices.subscribe([notice.kind]) as there, one.notices.subscribe([notice.kind]) as here:
            await one.write(adding("x", notice))
            with anyio.fail_after(30):
                assert await anext(there) == notice
                assert await anext(here) == notice


async def test_a_caller_that_gives_up_does_not_stop_the_writer(store: Store) -> None:
    with anyio.move_on_after(0):
        await store.write(adding("given-up"))
    assert await store.write(adding("next")) == "next"
    assert "next" in await slugs(store)


async def test_a_store_is_opened_again_with_what_it_had(database_url: str) -> None:
    async with await Store.open(database_url) as first:
        await first.write(adding("kept"))
    second = await Store.open(database_url)
    try:
        assert await slugs(second) == ["kept"]
    finally:
        await second.close()


async def test_two_servers_that_start_at_once_make_the_tables_once(empty_database_url: str) -> None:
    async def start() -> None:
        async with await Store.open(empty_database_url) as store:
            assert await slugs(store) == []

    async with anyio.create_task_group() as tasks:
        for _ in range(1 if empty_database_url.startswith("sqlite") else 3):
            tasks.start_soon(start)


async def test_the_files_of_sqlite_are_their_owners_alone(tmp_path: Path) -> None:
    async with await Store.open(f"sqlite:///{tmp_path}/new/server.db") as store:
        await store.write(adding("one"))
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new").iterdir()}
    assert modes["server.db"] == 0o600
    assert set(modes.values()) == {0o600}


async def test_more_reads_than_connections_take_turns(database_url: str) -> None:
    async with await Store.open(database_url, pace=Pace(connections=2)) as store:
        async with anyio.create_task_group() as tasks:
            for _ in range(12):
                tasks.start_soon(slugs, store)


async def test_every_table_is_there(store: Store) -> None:
    for table in metadata.sorted_tables:
        async with store.read() as connection:
            await connection.execute(select(func.count()).select_from(table))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "mysql://host/x",
        "sqlite://",
        "sqlite:///:memory:",
        "postgres ql://x",
        "http://user:secret@x",
        "postgresql://user@host/name?password=secret",
        "postgresql://user@host/name?sslkey=x&sslpassword=secret",
    ],
)
def test_what_is_no_address_of_a_database_is_refused(url: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_database_url(url)
    assert "secret" not in str(caught.value)


async def test_a_file_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(StoreAway):
        await Store.open(f"sqlite:///{tmp_path}/file/server.db")


async def test_what_ends_the_block_of_a_store_comes_out_as_it_is(database_url: str) -> None:
    with pytest.raises(NotFound):
        async with await Store.open(database_url):
            raise NotFound("job", "x")


async def test_two_servers_share_postgresql_only(database_url: str) -> None:
    async with await Store.open(database_url, alone=True):
        if database_url.startswith("sqlite"):
            with pytest.raises(StableError) as caught:
                await Store.open(database_url, alone=True)
            assert "PostgreSQL" in str(caught.value)
        else:
            await (await Store.open(database_url, alone=True)).close()
        # An administrator's command beside the server is no server.
        await (await Store.open(database_url)).close()
    await (await Store.open(database_url, alone=True)).close()


async def test_an_error_shows_no_values(store: Store) -> None:
    async def work(connection: Connection) -> None:
        await connection.execute(text("SELECT :secret FROM nowhere"), {"secret": "s3cret"})

    with pytest.raises(DBAPIError) as caught:
        await store.write(work)
    assert "s3cret" not in str(caught.value)
    with pytest.raises(DBAPIError) as caught:
        async with store.read() as connection:
            await work(connection)
    assert "s3cret" not in str(caught.value)


async def test_a_database_that_cannot_be_opened_is_named_without_its_password() -> None:
    with pytest.raises(StoreAway, match=r"postgresql.*127\.0\.0\.1:1/none cannot be reached: .*refused") as away:
        await Store.open("postgresql://me:hunter2@127.0.0.1:1/none")
    assert "hunter2" not in str(away.value)
