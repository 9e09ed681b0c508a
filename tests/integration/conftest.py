"""The databases of integration tests: each test that asks for one runs on SQLite and on PostgreSQL."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest

from metalmark.store import Store
from metalmark.testing.postgresql import Cluster, find_postgresql, running_postgresql


async def _make_tables(url: str) -> None:
    await (await Store.open(url)).close()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Cluster]:
    """A PostgreSQL server that all tests share; each has databases of its own."""
    if find_postgresql() is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    with running_postgresql() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def postgresql_with_tables(postgresql: Cluster) -> Cluster:
    """That server, its new databases with all tables: copying them takes a tenth of making them."""
    anyio.run(_make_tables, postgresql.url("template1"))
    return postgresql


@pytest.fixture(scope="session")
def sqlite_with_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file with all tables, to be copied."""
    path = tmp_path_factory.mktemp("sqlite") / "server.db"
    anyio.run(_make_tables, f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a new database without tables, once of each engine."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/empty.db"
        return
    cluster: Cluster = request.getfixturevalue("postgresql")
    with cluster.database(template="template0") as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a new database with all tables and nothing in them, once of each engine."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_with_tables"), tmp_path / "server.db")
        yield f"sqlite:///{tmp_path}/server.db"
        return
    cluster: Cluster = request.getfixturevalue("postgresql_with_tables")
    with cluster.database() as url:
        yield url


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    """An open store on a new database, once on each engine. The test is asynchronous."""
    async with await Store.open(database_url) as opened:
        yield opened
