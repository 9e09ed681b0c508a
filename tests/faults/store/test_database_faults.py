"""A database that is locked, full, stopped or gone: the documented error, nothing half-stored, and work after it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import event, func, insert, select, text

from metalmark.model import Conflict, StoreAway, StoreBusy, StoreFull, StoreUnavailable, new_id
from metalmark.store import MISSED, Connection, Notice, NoticeKind, Pace, Store, announce
from metalmark.store.tables import organizations
from metalmark.testing.postgresql import Cluster, find_postgresql, running_postgresql

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 31, tzinfo=UTC)
BRISK = Pace(lock_s=0.5, write_s=2, read_s=2, connect_s=2, tries=3)


@pytest.fixture
def own_postgresql() -> Iterator[Cluster]:
    """A PostgreSQL server of this test alone, to be stopped and killed."""
    if find_postgresql() is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    with running_postgresql() as cluster:
        yield cluster


async def add(connection: Connection, size: int = 1) -> None:
    uuid = new_id()
    values = {"id": uuid, "name": "x" * size, "slug": str(uuid), "created": NOW, "modified": NOW}
    await connection.execute(insert(organizations).values(**values))


async def count(store: Store) -> int:
    async with store.read() as connection:
        return int((await connection.execute(select(func.count()).select_from(organizations))).scalar_one())


async def eventually_writes(store: Store) -> None:
    """A write succeeds again once the fault is over; clients are told to come back after a second."""
    with anyio.fail_after(20):
        while True:
            try:
                await store.write(add)
            except StoreUnavailable:
                await anyio.sleep(0.1)
            else:
                return


async def test_a_locked_file_is_busy_for_writes_and_readable(tmp_path: Path) -> None:
    path = tmp_path / "server.db"
    async with await Store.open(f"sqlite:///{path}", pace=BRISK) as store:
        await store.write(add)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreBusy):
                await store.write(add)
            assert await count(store) == 1
            other.execute("ROLLBACK")
        await store.write(add)
        assert await count(store) == 2


async def test_writes_that_gather_behind_a_lock_are_all_told(tmp_path: Path) -> None:
    path = tmp_path / "server.db"
    told: list[type[Exception]] = []
    async with await Store.open(f"sqlite:///{path}", pace=BRISK) as store:

        async def one() -> None:
            try:
                await store.write(add)
            except StoreUnavailable as error:
                told.append(type(error))

        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            async with anyio.create_task_group() as tasks:
                for _ in range(10):
                    tasks.start_soon(one)
            other.execute("ROLLBACK")
        assert told == [StoreBusy] * 10
        # None of them is carried out after all, when the lock is gone.
        assert await count(store) == 0
        await store.write(add)


async def test_a_full_disk_spoils_the_write_that_fills_it_and_no_other(tmp_path: Path) -> None:
    async with await Store.open(f"sqlite:///{tmp_path}/server.db", pace=BRISK) as store:
        await store.write(add)

        async def limit(connection: Connection) -> None:
            # The same error as that of a full disk, without one.
            pages = (await connection.execute(text("PRAGMA page_count"))).scalar_one()
            await connection.execute(text(f"PRAGMA max_page_count = {pages + 20}"))
            event.listen(connection.engine.sync_engine, "connect", lambda new, _: limited(new, pages + 20))

        def limited(connection: Any, pages: int) -> None:
            cursor = connection.cursor()
            cursor.execute(f"PRAGMA max_page_count = {pages}")
            cursor.close()

        await store.write(limit)
        told: list[Exception] = []

        async def one(size: int) -> None:
            async def work(connection: Connection) -> None:
                await add(connection, size)

            try:
                await store.write(work)
            except StoreUnavailable as error:
                told.append(error)

        async with anyio.create_task_group() as tasks:
            for size in (10, 2_000_000, 10):
                tasks.start_soon(one, size)
        assert [type(error) for error in told] == [StoreFull]
        assert await count(store) == 3


async def test_a_work_that_hangs_is_ended_and_the_writer_goes_on(tmp_path: Path) -> None:
    async def hang(connection: Connection) -> None:
        await add(connection)
        await anyio.sleep_forever()

    async with await Store.open(f"sqlite:///{tmp_path}/server.db", pace=BRISK) as store:
        with pytest.raises(StoreUnavailable):
            await store.write(hang)
        await eventually_writes(store)
        assert await count(store) == 1


async def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "server.db").write_bytes(b"no database at all" * 1000)
    with pytest.raises(StoreUnavailable):
        await Store.open(f"sqlite:///{tmp_path}/server.db", pace=BRISK)


_WRITER = """
import sys
from datetime import UTC, datetime
import anyio
from sqlalchemy import insert
from metalmark.model import new_id
from metalmark.store import Store
from metalmark.store.tables import organizations, projects

async def main() -> None:
    now = datetime.now(UTC)
    async with await Store.open(sys.argv[1]) as store:
        async def pair(connection):
            uuid = new_id()
            common = dict(id=uuid, name="x", slug=str(uuid), created=now, modified=now)
            await connection.execute(insert(organizations).values(**common))
            await connection.execute(insert(projects).values(**common, organization_id=uuid, visibility="public"))
        async def many():
            while True:
                await store.write(pair)
                print("kept", flush=True)
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(many)

anyio.run(main)
"""


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_what_was_told_to_be_kept_outlives_a_kill(
    engine: str, tmp_path: Path, request: pytest.FixtureRequest, soak: bool
) -> None:
    url = f"sqlite:///{tmp_path}/server.db"
    if engine == "postgresql":
        url = request.getfixturevalue("own_postgresql").url("postgres")
    kept = 0
    for _ in range(20 if soak else 1):
        command = [sys.executable, "-c", _WRITER, url]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220  nothing else runs here
        assert process.stdout is not None
        kept += sum(1 for _ in zip(range(30), process.stdout, strict=False))
        process.kill()
        kept += process.stdout.read().count("kept\n")
        process.stdout.close()
        process.wait()
    async with await Store.open(url) as store, store.read() as connection:
        found = [
            (await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one()
            for table in ("organizations", "projects")
        ]
    assert found[0] == found[1] >= kept


async def test_connections_that_were_cut_are_replaced_without_an_error(own_postgresql: Cluster) -> None:
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'metalmark'"
    async with await Store.open(own_postgresql.url("postgres")) as store:
        await store.write(add)
        with store.notices.subscribe([NoticeKind.JOB_PENDING]) as subscription:
            own_postgresql.run_sql(cut)
            await store.write(add)
            own_postgresql.run_sql(cut)
            assert await count(store) == 2
            with anyio.fail_after(10):
                assert await anext(subscription) == MISSED

            async def tell(connection: Connection) -> None:
                announce(connection, Notice(kind=NoticeKind.JOB_PENDING))

            await store.write(tell)
            with anyio.fail_after(10):
                while (await anext(subscription)).kind is not NoticeKind.JOB_PENDING:
                    pass


async def test_a_stopped_server_is_away_in_time_and_back_again(own_postgresql: Cluster) -> None:
    async with await Store.open(own_postgresql.url("postgres"), pace=BRISK) as store:
        await store.write(add)
        pids = _family(own_postgresql.pid)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            began_s = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await store.write(add)
            with pytest.raises(StoreUnavailable):
                await count(store)
            # Two deadlines of two seconds, each with as long to tell the server that it is over.
            assert time.monotonic() - began_s < 20
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        await eventually_writes(store)
        # The write that was not answered may have taken place: nobody was told that it did, or did not.
        assert await count(store) in (2, 3)


async def test_a_server_that_is_gone_is_away_at_once(own_postgresql: Cluster) -> None:
    async with await Store.open(own_postgresql.url("postgres"), pace=BRISK) as store:
        await store.write(add)
        os.kill(own_postgresql.pid, signal.SIGQUIT)
        with anyio.fail_after(10):
            while (own_postgresql.folder / "data" / "postmaster.pid").exists():
                await anyio.sleep(0.05)
        with anyio.fail_after(5), pytest.raises(StoreAway):
            await store.write(add)
        with anyio.fail_after(5), pytest.raises(StoreAway):
            await count(store)
    with pytest.raises(StoreAway):
        await Store.open(own_postgresql.url("postgres"), pace=BRISK)


async def test_writes_that_lock_each_other_out_are_tried_again(own_postgresql: Cluster) -> None:
    async with await Store.open(own_postgresql.url("postgres")) as store:
        first, second = new_id(), new_id()

        async def make(connection: Connection) -> None:
            for uuid in (first, second):
                values = {"id": uuid, "name": "0", "slug": str(uuid), "created": NOW, "modified": NOW}
                await connection.execute(insert(organizations).values(**values))

        await store.write(make)

        def touching(*order: object) -> object:
            async def work(connection: Connection) -> None:
                for uuid in order:
                    row = organizations.c.id == uuid
                    await connection.execute(
                        organizations.update().where(row).values(name=organizations.c.name.op("||")("x"))
                    )
                    await anyio.sleep(0.05)

            return work

        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(store.write, touching(first, second))
                tasks.start_soon(store.write, touching(second, first))
        async with store.read() as connection:
            names = (await connection.execute(select(organizations.c.name))).scalars().all()
        assert list(names) == ["0xxxx", "0xxxx"]


async def test_a_conflict_of_a_full_group_leaves_the_rest(tmp_path: Path) -> None:
    async with await Store.open(f"sqlite:///{tmp_path}/server.db") as store:
        uuid = new_id()
        values = {"id": uuid, "name": "x", "slug": "same", "created": NOW, "modified": NOW}
        told: list[Conflict] = []

        async def same(connection: Connection) -> None:
            await add(connection)
            await connection.execute(insert(organizations).values(**values))

        async def one() -> None:
            try:
                await store.write(same)
            except Conflict as error:
                told.append(error)

        async with anyio.create_task_group() as tasks:
            for _ in range(300):
                tasks.start_soon(one)
        assert len(told) == 299
        assert await count(store) == 2


def _family(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    return [pid, *(int(child) for child in children)]
