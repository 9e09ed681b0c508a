"""The databases of integration tests: each test that asks for one runs on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from metalmark.store import Store
from metalmark.testing.postgresql import Cluster, find_postgresql, running_postgresql


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Cluster]:
    """A PostgreSQL server that all tests share; each has databases of its own."""
    if find_postgresql() is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    with running_postgresql() as cluster:
        yield cluster


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a new, empty database, once of each engine."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/server.db"
        return
    cluster: Cluster = request.getfixturevalue("postgresql")
    with cluster.database() as url:
        yield url


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    """An open store on a new database, once on each engine. The test is asynchronous."""
    async with await Store.open(database_url) as opened:
        yield opened
