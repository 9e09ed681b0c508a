"""Blobs that nothing refers to go, and no other does."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.integration.server.channel.conftest import Rack, rack

from metalmark.model import new_id
from metalmark.server import ServerContext
from metalmark.server.orphan_sweep import OrphanSweep

RUN = {"start_time": "2026-03-01T10:00:00Z", "end_time": "2026-03-01T10:00:42Z", "results": ["{}"]}
ALL_OLD = timedelta(seconds=-60)


@pytest.fixture
def server(tmp_path: Path, database_url: str) -> Iterator[Rack]:
    with rack(tmp_path / "server", database_url) as made:
        yield made


def keys(made: Rack) -> set[str]:
    async def read(context: ServerContext) -> set[str]:
        return {found.key for folder in ("results", "outputs") for found in await context.blobs.below(folder)}

    return made.call(read)


def put(made: Rack, *names: str) -> set[str]:
    async def write(context: ServerContext) -> None:
        for name in names:
            await context.blobs.put(name, b"{}")

    made.call(write)
    return set(names)


def sweep(made: Rack) -> int:
    async def act(context: ServerContext) -> int:
        return await OrphanSweep(context).sweep()

    return made.call(act)


def test_orphans_go_once_they_are_old_and_nothing_else_does(server: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
    with server.server.client() as client:
        answer = client.post("/v0/run", json={**RUN, "project": str(server.floor.project)})
        assert answer.status_code == 201, answer.text
    spec = server.own_spec()
    runner, ended = server.runner(spec=spec), server.submit(spec)
    runner.take()
    runner.complete(ended, [{"exit_code": 0, "stdout": ""}])
    assert server.status(ended) == "processed"
    running = server.submit(spec)
    runner.take()
    held = keys(server)
    assert len(held) == 2
    project = server.floor.project
    kept = held | put(server, f"outputs/{project}/{running}/1-aa.json", "results/strange.json", "outputs/strange")
    orphans = put(
        server,
        f"results/{new_id()}.json",
        f"outputs/{project}/{new_id()}/1-aa.json",
        f"outputs/{project}/{ended}/1-bb.json",
    )
    # The first one only says whose storage this is.
    assert (sweep(server), sweep(server)) == (0, 0)
    assert keys(server) == kept | orphans, "they are new"
    monkeypatch.setattr("metalmark.server.orphan_sweep.KEPT", ALL_OLD)
    assert sweep(server) == len(orphans)
    assert keys(server) == kept


def test_a_storage_of_two_databases_is_left_alone(server: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metalmark.server.orphan_sweep.KEPT", ALL_OLD)
    put(server, "database/01")
    orphans = put(server, f"results/{new_id()}.json")
    assert (sweep(server), sweep(server)) == (0, 0)
    assert keys(server) == orphans
