"""A database that tests break."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psycopg
import pytest

from metalmark.testing.postgresql import Cluster, find_postgresql, running_postgresql


@pytest.fixture(scope="session")
def durable_cluster() -> Iterator[Cluster]:
    """A PostgreSQL server that keeps what it has committed when it is killed."""
    if find_postgresql() is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with running_postgresql(fsync="on", synchronous_commit="on") as cluster:
        yield cluster


@pytest.fixture
def durable_database(durable_cluster: Cluster) -> Iterator[str]:
    """A database that is new, of a server that has recovered from what an earlier test did to it."""
    with durable_cluster.database() as database:
        yield database
        deadline = time.monotonic() + 60
        while True:
            try:
                durable_cluster.run_sql("SELECT 1")
                break
            except psycopg.OperationalError:
                assert time.monotonic() < deadline
                time.sleep(0.2)
