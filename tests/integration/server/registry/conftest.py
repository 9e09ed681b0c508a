"""Servers with a registry, one of each engine and one over an object store, and repositories to push to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.integration.server.engines import PLACES, server_of
from tests.integration.server.registry.pushing import Pushing, pushing
from tests.integration.server.registry_world import RegistryWorld, make_world

from metalmark.testing.running_server import RunningServer


@pytest.fixture(scope="package", params=PLACES)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of each engine, and of each storage."""
    with server_of(request, tmp_path_factory) as running:
        yield running


@pytest.fixture(scope="package")
def world(server: RunningServer) -> RegistryWorld:
    return make_world(server)


@pytest.fixture
def repository(server: RunningServer, world: RegistryWorld) -> Iterator[Pushing]:
    """A new repository, as somebody sees it who may do everything with it."""
    with server.client(None) as client:
        yield pushing(client, world)
