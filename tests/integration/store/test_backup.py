"""Copies of a database that is in use, and putting them back."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest
from sqlalchemy import func, insert, select

from metalmark.model import InputError, StoreAway, StoreBusy, new_id
from metalmark.store import Connection, Store, back_up, restore, vacuum
from metalmark.store.tables import organizations, projects
from metalmark.system import find_tool

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 31, tzinfo=UTC)


async def add_pair(store: Store) -> None:
    """Add an organization and its project, which are only ever there together."""

    async def work(connection: Connection) -> None:
        uuid = new_id()
        common = {"id": uuid, "name": "x", "slug": str(uuid), "created": NOW, "modified": NOW}
        await connection.execute(insert(organizations).values(**common))
        await connection.execute(insert(projects).values(**common, organization_id=uuid, visibility="public"))

    await store.write(work)


async def counts(url: str) -> tuple[int, int]:
    async with await Store.open(url) as store, store.read() as connection:
        found = [
            (await connection.execute(select(func.count()).select_from(table))).scalar_one()
            for table in (organizations, projects)
        ]
    return found[0], found[1]


async def test_a_copy_made_during_writes_is_of_one_moment_and_comes_back(database_url: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    async with await Store.open(database_url) as store:
        for _ in range(5):
            await add_pair(store)
        async with anyio.create_task_group() as tasks:

            async def write_on() -> None:
                while True:
                    await add_pair(store)

            tasks.start_soon(write_on)
            await back_up(database_url, copy)
            tasks.cancel_scope.cancel()
        await add_pair(store)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    last = await counts(database_url)
    await restore(database_url, copy)
    organizations_then, projects_then = await counts(database_url)
    assert organizations_then == projects_then
    assert 5 <= organizations_then < last[0]
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


async def test_a_copy_makes_a_new_database(tmp_path: Path, sqlite_with_tables: Path) -> None:
    await back_up(f"sqlite:///{sqlite_with_tables}", tmp_path / "copy")
    new = f"sqlite:///{tmp_path}/new/server.db"
    await restore(new, tmp_path / "copy")
    assert await counts(new) == (0, 0)


async def test_nothing_is_put_back_into_a_database_in_use(database_url: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    await back_up(database_url, copy)
    async with await Store.open(database_url) as store:
        await add_pair(store)
        with pytest.raises(StoreBusy) as caught:
            await restore(database_url, copy)
        assert "stop" in caught.value.hint
        await add_pair(store)
    assert await counts(database_url) == (2, 2)


async def test_what_is_no_copy_is_refused_and_leaves_the_database(database_url: str, tmp_path: Path) -> None:
    async with await Store.open(database_url) as store:
        await add_pair(store)
    for content in (b"", b"SQLite format 3\x00 and then nothing", b"PGDM", bytes(4096)):
        (tmp_path / "odd").write_bytes(content)
        with pytest.raises(InputError):
            await restore(database_url, tmp_path / "odd")
    with pytest.raises(InputError):
        await restore(database_url, tmp_path / "nothing")
    assert await counts(database_url) == (1, 1)


async def test_a_vacuum_gives_space_back_while_the_database_is_read(tmp_path: Path, sqlite_with_tables: Path) -> None:
    url = f"sqlite:///{tmp_path}/server.db"
    await restore(url, sqlite_with_tables)
    async with await Store.open(url) as store:

        async def fill(connection: Connection) -> None:
            for _ in range(300):
                uuid = new_id()
                values = {"id": uuid, "name": "x" * 10_000, "slug": str(uuid), "created": NOW, "modified": NOW}
                await connection.execute(insert(organizations).values(**values))

        async def empty(connection: Connection) -> None:
            await connection.execute(organizations.delete())

        await store.write(fill)
        await store.write(empty)
        await vacuum(url)
        await add_pair(store)
    assert (tmp_path / "server.db").stat().st_size < 1_000_000
    assert await counts(url) == (1, 1)


async def test_a_vacuum_works_on_both_engines(database_url: str) -> None:
    await vacuum(database_url)
    assert await counts(database_url) == (0, 0)


async def test_a_database_that_is_not_there_is_told(tmp_path: Path) -> None:
    missing = f"sqlite:///{tmp_path}/missing.db"
    for work in (back_up(missing, tmp_path / "copy"), vacuum(missing)):
        with pytest.raises(StoreAway):
            await work
    assert list(tmp_path.iterdir()) == []


async def test_the_password_is_no_argument_of_a_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    find_tool("pg_dump")
    seen: list[tuple[object, object]] = []

    async def run(argv: object, *, env: object, **_: object) -> object:
        seen.append((argv, env))
        raise RuntimeError

    monkeypatch.setattr("metalmark.store.backup.run", run)
    with pytest.raises(RuntimeError):
        await back_up("postgresql://user:s3cret@host/name", tmp_path / "copy")
    assert "s3cret" not in str(seen[0][0])
    assert "s3cret" in str(seen[0][1])
