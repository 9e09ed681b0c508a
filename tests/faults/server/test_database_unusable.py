"""A database that is locked, stopped or gone: 503 in bounded time, nothing half stored, and it passes."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from metalmark.testing.postgresql import Cluster
from metalmark.testing.server_process import UNLIMITED, ServerProcess, Settings, running_server_process

BOUND_S = 45
"""Within which every request has to be answered, whatever the database does."""


def server_on(database: str, folder: Path) -> contextlib.AbstractContextManager[ServerProcess]:
    settings: Settings = {"database": database, "storage": str(folder / "storage"), "limits": UNLIMITED}
    return running_server_process(folder, settings)


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Iterator[ServerProcess]:
    with server_on(f"sqlite:///{tmp_path}/server.db", tmp_path) as server:
        yield server


@pytest.fixture
def on_postgresql(tmp_path: Path, durable_database: str) -> Iterator[ServerProcess]:
    with server_on(durable_database, tmp_path) as server:
        yield server


def client_of(server: ServerProcess) -> httpx.Client:
    headers = {"authorization": f"Bearer {server.admin_key()}"}
    return httpx.Client(base_url=server.url, headers=headers, timeout=BOUND_S, trust_env=False)


def refused(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert "sqlite" not in answer.text.lower()
    assert "psycopg" not in answer.text.lower()


def test_a_locked_database(on_sqlite: ServerProcess, tmp_path: Path) -> None:
    with client_of(on_sqlite) as client:
        client.get("/v0/runners").raise_for_status()
        with contextlib.closing(sqlite3.connect(tmp_path / "server.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            refused(client.post("/v0/runners", json={"name": "Locked out"}))
            # Readers do not wait for writers.
            assert client.get("/v0/runners").json() == []
            other.execute("ROLLBACK")
        assert client.post("/v0/runners", json={"name": "Locked out"}).status_code == 201
        assert len(client.get("/v0/runners").json()) == 1


def test_a_database_that_is_killed_comes_back(on_postgresql: ServerProcess, durable_cluster: Cluster) -> None:
    with client_of(on_postgresql) as client:
        assert client.post("/v0/runners", json={"name": "Before"}).status_code == 201
        backends = Path(f"/proc/{durable_cluster.pid}/task/{durable_cluster.pid}/children").read_text().split()
        for pid in backends:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        deadline = time.monotonic() + BOUND_S
        statuses = []
        while True:
            answer = client.post("/v0/runners", json={"name": "After"})
            statuses.append(answer.status_code)
            if answer.status_code == 503:
                refused(answer)
            if answer.status_code in {201, 409}:
                break
            assert answer.status_code == 503, on_postgresql.log()[-6000:]
            assert time.monotonic() < deadline, statuses
            time.sleep(0.1)
        names = sorted(row["name"] for row in client.get("/v0/runners").json())
        assert names == ["After", "Before"]


def test_a_database_that_hangs_is_given_up_in_time(on_postgresql: ServerProcess, durable_cluster: Cluster) -> None:
    with client_of(on_postgresql) as client:
        client.get("/v0/runners").raise_for_status()
        listed = Path(f"/proc/{durable_cluster.pid}/task/{durable_cluster.pid}/children").read_text().split()
        family = [durable_cluster.pid, *(int(pid) for pid in listed)]
        try:
            for pid in family:
                os.kill(pid, signal.SIGSTOP)
            refused(client.get("/v0/runners"))
            assert client.get("/v0/server/version").status_code == 200
            assert client.get("/healthz").status_code == 200
            assert client.get("/readyz").status_code == 503
        finally:
            for pid in family:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        deadline = time.monotonic() + BOUND_S
        while client.get("/v0/runners").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert client.post("/v0/runners", json={"name": "Later"}).status_code == 201


def test_a_graceful_stop_ends_well(on_sqlite: ServerProcess) -> None:
    with client_of(on_sqlite) as client:
        assert client.post("/v0/runners", json={"name": "Kept"}).status_code == 201
    key = on_sqlite.admin_key()
    assert on_sqlite.stop() == 0
    on_sqlite.start()
    with client_of(on_sqlite) as client:
        assert [row["name"] for row in client.get("/v0/runners").json()] == ["Kept"]
    # The second start makes no second administrator.
    assert on_sqlite.log().count("bencher_user_") == on_sqlite.log().count(key)
