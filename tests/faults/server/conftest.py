"""A database that tests break."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from metalmark.testing.postgresql import Cluster, find_postgresql, running_postgresql


@pytest.fixture(scope="session")
def durable_cluster() -> Iterator[Cluster]:
    """A PostgreSQL server that keeps what it has committed when it is killed."""
    if find_postgresql() is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with running_postgresql(fsync="on", synchronous_commit="on") as cluster:
        yield cluster
