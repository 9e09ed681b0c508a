"""A server with its database, and what faults can be done to them while jobs are under way."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psycopg
from tests.integration.server.job_ledger import Change, check_histories

from metalmark.testing.postgresql import Cluster
from metalmark.testing.server_process import UNLIMITED, ServerProcess, Settings

STATUSES = ("pending", "claimed", "running", "completed", "processed", "failed", "canceled")
FINAL = {"processed", "failed", "canceled"}
SPEC = {"os": "linux", "architecture": "x86_64", "sandbox": "firecracker", "cpu": 1, "memory": 2**30, "disk": 2**30}
TIMES = {"start_time": "2026-01-01T00:00:00Z", "end_time": "2026-01-01T00:00:00Z", "results": []}


@dataclass(kw_only=True)
class Place:
    """What one module's tests share."""

    server: ServerProcess
    cluster: Cluster | None
    """None for SQLite."""
    image: str
    lease_s: float
    key: str = ""
    project: str = ""
    back_s: float = 0.0
    """When the last fault was over, by the monotonic clock."""

    def call(
        self, method: str, path: str, body: object = None, *, key: str = "", seconds: float = 15
    ) -> httpx.Response:
        headers = {"authorization": f"Bearer {key or self.key}"}
        with httpx.Client(base_url=self.server.url, headers=headers, timeout=seconds, trust_env=False) as client:
            return client.request(method, path, json=body) if body is not None else client.request(method, path)

    def made(self, path: str, body: object) -> dict[str, Any]:
        answer = self.call("POST", path, body)
        assert answer.status_code == 201, answer.text
        row: dict[str, Any] = answer.json()
        return row

    def runner(self, name: str) -> tuple[dict[str, Any], str]:
        """Make a runner, and a spec that no other runner has."""
        runner = self.made("/v0/runners", {"name": name})
        spec: str = self.made("/v0/specs", {"name": name, **SPEC})["uuid"]
        self.made(f"/v0/runners/{runner['uuid']}/specs", {"spec": spec})
        return runner, spec

    def submit(self, spec: str, **job: object) -> str | None:
        """Submit a job; None when the server did not say that it has it."""
        wanted = {"image": self.image, "spec": spec, "timeout": 60, **job}
        answer = self.call("POST", "/v0/run", {"project": self.project, **TIMES, "job": wanted})
        found: str | None = answer.json()["job"] if answer.status_code == 201 else None
        return found

    def cancel(self, job: str | None) -> bool:
        """Cancel a job; whether the server said that it is."""
        return self.call("POST", f"/v0/projects/{self.project}/jobs/{job}/cancel").is_success

    def status(self, job: str) -> str:
        answer = self.call("GET", f"/v0/projects/{self.project}/jobs/{job}")
        assert answer.status_code == 200, answer.text
        status: str = answer.json()["status"]
        return status

    def settle(self, jobs: list[str], deadline: float) -> dict[str, str]:
        """Wait until every job has ended, or waits for a runner, and return how."""
        while True:
            found = self.statuses()
            going = {job: found[job] for job in jobs if found[job] not in FINAL | {"pending"}}
            if not going:
                return found
            assert time.monotonic() < deadline, f"not over in time: {going}"
            time.sleep(0.2)

    def statuses(self) -> dict[str, str]:
        """Return the states of all jobs, as the database has them."""
        _, jobs = self._rows()
        return {str(_text(job)): STATUSES[code] for job, code in jobs}

    def ledger(self) -> dict[str, list[Change]]:
        """Return what happened to every job, once it was found to be in order."""
        events, jobs = self._rows()
        histories: defaultdict[object, list[Change]] = defaultdict(list)
        for job, *change in events:
            histories[_text(job)].append((change[0], change[1], change[2], change[3]))
        check_histories(histories, {_text(job): status for job, status in jobs})
        return {str(job): history for job, history in histories.items()}

    def _rows(self) -> tuple[list[Any], list[Any]]:
        return self._sqlite_rows() if self.cluster is None else self._postgresql_rows()

    def _sqlite_rows(self) -> tuple[list[Any], list[Any]]:
        path = str(self.server.settings["database"]).removeprefix("sqlite:///")
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)) as connection:
            connection.execute("BEGIN")
            return connection.execute(_EVENTS).fetchall(), connection.execute(_JOBS).fetchall()

    def _postgresql_rows(self) -> tuple[list[Any], list[Any]]:
        with psycopg.connect(str(self.server.settings["database"])) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            return connection.execute(_EVENTS).fetchall(), connection.execute(_JOBS).fetchall()

    def kill_server(self, for_s: float) -> None:
        self.server.kill()
        time.sleep(for_s)
        self.back_s = time.monotonic()
        self.server.start()

    def stop_server(self, for_s: float) -> None:
        self.server.suspend()
        time.sleep(for_s)
        self.back_s = time.monotonic()
        self.server.resume()

    def kill_database(self, for_s: float) -> None:
        # A backend that is killed makes the postmaster end all others and recover from its log, as after a crash.
        assert self.cluster is not None
        until = time.monotonic() + for_s
        while True:
            for pid in children(self.cluster.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > until:
                return
            time.sleep(0.2)

    def stop_database(self, for_s: float) -> None:
        assert self.cluster is not None
        stopped = [self.cluster.pid, *children(self.cluster.pid)]
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        time.sleep(for_s)
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


_EVENTS = "SELECT job_id, event, status_before, status_after, lease FROM job_events ORDER BY job_id, lease, id"
_JOBS = "SELECT id, status FROM jobs"

FAULTS: dict[str, Callable[[Place, float], None]] = {
    "kill the server": Place.kill_server,
    "stop the server": Place.stop_server,
    "kill the database": Place.kill_database,
    "stop the database": Place.stop_database,
}
"""Each with how long it lasts; a server that was killed takes a moment longer."""


def _text(identifier: UUID | bytes) -> str:
    return str(identifier if isinstance(identifier, UUID) else UUID(bytes=identifier))


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(word) for word in listed.split()]


@contextmanager
def serving_place(
    folder: Path, database: str, cluster: Cluster | None, *, lease_s: float, **jobs: int
) -> Iterator[Place]:
    """Run a server whose leases are short.

    Args:
        folder: Where it keeps everything.
        database: Its database's URL.
        cluster: Where that is, when it is of PostgreSQL.
        lease_s: How long a lease lasts.
        jobs: Further keys of the section ``jobs``.
    """
    settings: Settings = {
        "database": database,
        "storage": str(folder / "storage"),
        "jobs": {"heartbeat_timeout_s": lease_s, "grace_s": 1, **jobs},
        "limits": UNLIMITED,
    }
    server = ServerProcess(folder=folder, settings=settings)
    try:
        server.start()
        # Public runners get images of the server's own registry only; nobody pulls this one.
        image = f"localhost:{server.port}/app@sha256:{'a' * 64}"
        place = Place(server=server, cluster=cluster, image=image, lease_s=lease_s)
        place.key = server.admin_key()
        organization = place.made("/v0/organizations", {"name": "Faults"})
        projects = f"/v0/organizations/{organization['slug']}/projects"
        place.project = place.made(projects, {"name": "Faults"})["slug"]
        yield place
    finally:
        if server.alive:
            server.stop()
