"""The steps of the tables' history, from an empty database and from every step before the last, on both engines."""

from __future__ import annotations

import sqlite3
import warnings
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Column, create_engine, insert, inspect, select
from sqlalchemy import Connection as SyncConnection

from metalmark.model import new_id
from metalmark.store import Connection, NewerDatabase, Store
from metalmark.store.columns import metadata
from metalmark.store.migrations import revisions, schema_revisions
from metalmark.store.tables import users

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 31, tzinfo=UTC)
OF_EXPRESSIONS = {
    index.name
    for table in metadata.tables.values()
    for index in table.indexes
    if any(not isinstance(expression, Column) for expression in index.expressions)
}
NAMES = tuple(revision.name for revision in revisions())


def differences(connection: SyncConnection) -> list[Any]:
    context = MigrationContext.configure(connection, opts={"compare_type": connection.dialect.name == "postgresql"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = list(compare_metadata(context, metadata))
    # Alembic cannot compare indexes of expressions on SQLite; a test below does.
    return [each for each in found if getattr(each[1], "name", None) not in OF_EXPRESSIONS]


async def differences_of(store: Store) -> list[Any]:
    async def work(connection: Connection) -> list[Any]:
        return await connection.run_sync(differences)

    return await store.write(work)


async def applied(store: Store) -> tuple[str, ...]:
    def read(connection: SyncConnection) -> tuple[str, ...]:
        if not inspect(connection).has_table(schema_revisions.name):
            return ()
        return tuple(connection.execute(select(schema_revisions.c.name).order_by(schema_revisions.c.name)).scalars())

    async with store.read() as connection:
        return await connection.run_sync(read)


def index_names(connection: SyncConnection) -> set[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {
            str(index["name"])
            for table in metadata.tables
            for index in inspect(connection).get_indexes(table)
            if not index.get("duplicates_constraint")
        }
    return found - {name for name in found if name.startswith("sqlite_autoindex")}


@pytest.mark.parametrize("until", NAMES)
async def test_any_revision_becomes_the_last_and_keeps_its_rows(empty_database_url: str, until: str) -> None:
    values = {"id": new_id(), "name": "Ada", "slug": "ada", "email": "ada@example.com", "admin": True}

    async def add(connection: Connection) -> None:
        await connection.execute(
            insert(users).values(**values, locked=False, session_epoch=0, created=NOW, modified=NOW)
        )

    async with await Store.open(empty_database_url, migrated=False) as store:
        assert await applied(store) == ()
        assert await store.migrate(NOW, until=until) == NAMES[: NAMES.index(until) + 1]
        await store.write(add)
    async with await Store.open(empty_database_url) as store:
        assert await applied(store) == NAMES
        assert await differences_of(store) == []
        async with store.read() as connection:
            row = (await connection.execute(select(users))).one()
    assert {name: getattr(row, name) for name in values} == values


async def test_the_last_revision_has_every_index_of_the_tables(store: Store) -> None:
    wanted = {str(index.name) for table in metadata.tables.values() for index in table.indexes}
    if store.engine_name == "postgresql":
        async with store.read() as connection:
            found = await connection.run_sync(index_names)
        assert wanted == found & wanted


def test_on_sqlite_the_revisions_say_what_the_tables_say(sqlite_with_tables: Path, tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/other.db")
    metadata.create_all(engine)
    engine.dispose()

    def said(path: Path) -> dict[str, list[str]]:
        with closing(sqlite3.connect(path)) as connection:
            rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        # The order of constraints is not the same, what each says is.
        return {name: sorted(part.strip(" ,()") for part in sql.splitlines()) for name, sql in rows}

    assert said(sqlite_with_tables) == said(tmp_path / "other.db")


async def test_a_second_migration_has_nothing_to_do(store: Store) -> None:
    assert await store.migrate(NOW) == ()


async def test_a_database_of_a_newer_version_is_left_alone(database_url: str) -> None:
    async def from_the_future(connection: Connection) -> None:
        await connection.execute(insert(schema_revisions).values(name="9999_beyond", applied=NOW))

    async with await Store.open(database_url) as store:
        await store.write(from_the_future)
    with pytest.raises(NewerDatabase) as caught:
        await Store.open(database_url)
    assert "9999_beyond" in str(caught.value)


async def test_a_step_that_fails_leaves_nothing_of_the_migration(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_operations: object) -> None:
        raise RuntimeError("half way")

    monkeypatch.setattr("metalmark.store.revision_0003_measured_things.upgrade", fail)
    with pytest.raises(RuntimeError):
        await Store.open(empty_database_url)
    async with await Store.open(empty_database_url, migrated=False) as store:
        assert await applied(store) == ()
        async with store.read() as connection:
            assert not await connection.run_sync(lambda sync: inspect(sync).has_table("users"))
