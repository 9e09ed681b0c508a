"""A running server over the engine, and the storage, that a fixture is parametrised by."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from tests.integration.server.object_stores import find_versitygw, new_bucket, object_store

from metalmark.testing.postgresql import Cluster
from metalmark.testing.running_server import RunningServer, running_server

ENGINES = ("sqlite", "postgresql")
SOAK = bool(os.environ.get("METALMARK_SOAK"))
_OBJECTS = ("sqlite, objects", *(["postgresql, objects"] if SOAK else [])) if find_versitygw() else ()
PLACES = (*ENGINES, *_OBJECTS)
"""Engines with a folder as storage, and, where it was built, with an object store that is a product."""


@contextmanager
def server_of(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    *,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[RunningServer]:
    """Run a server over what ``request.param`` names, one of `ENGINES` or `PLACES`."""
    with server_at(request.param, request, tmp_path_factory, settings=settings) as running:
        yield running


@contextmanager
def server_at(
    place: str,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    *,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[RunningServer]:
    """Run a server over one of `ENGINES` or `PLACES`."""
    folder = tmp_path_factory.mktemp("server")
    with ExitStack() as stack:
        database = storage = None
        engine, _, objects = place.partition(", ")
        if objects:
            made = new_bucket(stack.enter_context(object_store("versitygw", folder / "store")))
            # Commands that a test runs in this process find it too.
            stack.enter_context(made.named())
            storage = made.storage
        if engine == "postgresql":
            cluster: Cluster = request.getfixturevalue("postgresql_with_tables")
            database = stack.enter_context(cluster.database())
        yield stack.enter_context(running_server(folder / "own", database=database, storage=storage, settings=settings))
