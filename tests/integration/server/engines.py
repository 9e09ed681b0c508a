"""A running server over the engine that a fixture is parametrised by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from metalmark.testing.running_server import RunningServer, running_server

ENGINES = ("sqlite", "postgresql")


@contextmanager
def server_of(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    *,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[RunningServer]:
    """Run a server over the engine that ``request.param`` names, one of `ENGINES`."""
    folder = tmp_path_factory.mktemp("server")
    if request.param == "sqlite":
        with running_server(folder, settings=settings) as running:
            yield running
        return
    cluster = request.getfixturevalue("postgresql_with_tables")
    with cluster.database() as url, running_server(folder, database=url, settings=settings) as running:
        yield running
