"""Two server processes on one PostgreSQL and one storage: what one begins the other ends, also when one is killed."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from metalmark.testing.raw_channel import RawChannel
from metalmark.testing.server_process import UNLIMITED, ServerProcess, Settings

LEASE_S = 5
CAPABLE = {
    "os": "linux",
    "architecture": "x86_64",
    "sandboxes": ["qemu"],
    "vcpus": 8,
    "memory_bytes": 2**34,
    "disk_bytes": 2**36,
    "network": False,
}
SPEC = {"os": "linux", "architecture": "x86_64", "sandbox": "qemu", "cpu": 1, "memory": 2**30, "disk": 2**30}
TIMES = {"start_time": "2026-03-01T10:00:00Z", "end_time": "2026-03-01T10:00:42Z", "results": []}
IMAGE = f"app@sha256:{'a' * 64}"


@dataclass(kw_only=True)
class Pair:
    """Two processes, and what is kept in their one database."""

    one: ServerProcess
    other: ServerProcess
    key: str
    project: str
    runner: dict[str, str]
    spec: str

    def ask(self, server: ServerProcess, method: str, path: str, **body: object) -> Any:
        headers = {"Authorization": f"Bearer {self.key}"}
        answer = httpx.request(
            method, server.url + path, headers=headers, json=body or None, timeout=30, trust_env=False
        )
        assert answer.status_code < 300, answer.text
        return answer.json()

    def submit(self, server: ServerProcess) -> str:
        job = {"image": IMAGE, "spec": self.spec}
        run = {"project": self.project, "branch": "main", "testbed": "host", **TIMES, "job": job}
        submitted: str = self.ask(server, "POST", "/v0/run", **run)["job"]
        return submitted

    def status(self, server: ServerProcess, job: str) -> str:
        status: str = self.ask(server, "GET", f"/v0/projects/{self.project}/jobs/{job}")["status"]
        return status

    @contextmanager
    def connected(self, server: ServerProcess, *, holding: tuple[dict[str, Any], ...] = ()) -> Iterator[Runner]:
        headers = {"Authorization": f"Bearer {self.runner['key']}", "Sec-WebSocket-Protocol": "metalmark.1"}
        with RawChannel(server.url, f"/v0/runners/{self.runner['uuid']}/channel", headers) as channel:
            runner = Runner(channel=channel)
            hello = {"version": "1", "process": "p", "boot": "b", "capabilities": CAPABLE, "holding": list(holding)}
            runner.held = runner.tell("hello", **hello)["held"]
            yield runner


@dataclass(kw_only=True)
class Runner:
    """A runner that a test moves by hand."""

    channel: RawChannel
    held: list[dict[str, Any]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def tell(self, event: str, **fields: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self.channel.say(event=event, id=number, **fields)
        answer = self.channel.hear()
        assert answer["re"] == number, answer
        assert answer["event"] != "refused", answer
        return answer

    def take(self) -> dict[str, Any]:
        """Return what names the job that the server sends."""
        job = self.channel.hear()
        assert job["event"] == "job", job
        return {"job": job["job"], "lease": job["lease"]}


@pytest.fixture
def pair(durable_database: str, tmp_path: Path) -> Iterator[Pair]:
    settings: Settings = {
        "database": durable_database,
        "storage": str(tmp_path / "storage"),
        "jobs": {"heartbeat_timeout_s": LEASE_S, "grace_s": 1},
        "limits": UNLIMITED,
    }
    one, other = (ServerProcess(folder=tmp_path / name, settings=settings) for name in ("one", "other"))
    try:
        # Both at once, on a database without tables.
        one.launch()
        other.launch()
        one.wait_until_ready()
        other.wait_until_ready()
        key = next(made.admin_key() for made in (one, other) if made.log().count("first start"))
        found = Pair(one=one, other=other, key=key, project="", runner={}, spec="")
        organization = found.ask(one, "POST", "/v0/organizations", name="Two")["slug"]
        found.project = found.ask(other, "POST", f"/v0/organizations/{organization}/projects", name="Two")["slug"]
        found.spec = found.ask(one, "POST", "/v0/specs", name="small", **SPEC)["uuid"]
        found.runner = found.ask(other, "POST", "/v0/runners", name="r")
        found.ask(one, "POST", f"/v0/runners/{found.runner['uuid']}/specs", spec=found.spec)
        yield found
    finally:
        for server in (one, other):
            if server.alive:
                server.stop()


def events(response: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and data of the events of a stream."""
    name = ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def wait_for(pair: Pair, server: ServerProcess, job: str, status: str, *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (now := pair.status(server, job)) != status:
        assert time.monotonic() < deadline, now
        time.sleep(0.1)


@pytest.mark.timeout(180)
def test_work_crosses_between_processes_and_outlives_each(pair: Pair) -> None:
    one, other = pair.one, pair.other
    with pair.connected(other) as runner:
        runner.tell("ready", slots=1, received=0)
        # Submitted at one, woken at the other, followed and canceled at the first.
        job = pair.submit(one)
        held = runner.take()
        assert held["job"] == job
        runner.tell("running", **held)
        path = f"{one.url}/v0/projects/{pair.project}/jobs/{job}/output?follow=true"
        headers = {"Authorization": f"Bearer {pair.key}"}
        with httpx.stream("GET", path, headers=headers, timeout=30, trust_env=False) as response:
            stream = events(response)
            chunk = {"iteration": 0, "stream": "stdout", "data": base64.b64encode(b"live").decode()}
            runner.tell("output", offset=0, chunks=[chunk], **held)
            assert next(data["text"] for name, data in stream if name == "output") == "live"
            pair.ask(one, "POST", f"/v0/projects/{pair.project}/jobs/{job}/cancel")
            assert runner.channel.hear() == {"event": "cancel", **held}
            assert next(data["status"] for name, data in stream if name == "end") == "canceled"

        # The process that holds the connection is killed: its runner goes on at the other one.
        job = pair.submit(one)
        runner.tell("ready", slots=1, received=1)
        held = runner.take()
        runner.tell("running", **held)
        other.kill()
        with pair.connected(one, holding=(held,)) as again:
            assert again.held == [held]
            again.tell("attach", **held)
            again.tell("completed", results=[{"exit_code": 0, "stdout": "{}"}], **held)
            assert pair.status(one, job) == "processed"

    # The key of a runner that is connected to one process is replaced at the other.
    other.start()
    with pair.connected(one) as runner:
        pair.runner = pair.ask(other, "POST", f"/v0/runners/{pair.runner['uuid']}/key")
        assert runner.channel.closed(within_s=10).close_code == 4401

    # Process and runner die: the other process ends the lease.
    with contextlib.suppress(Exception), pair.connected(one) as runner:
        runner.tell("ready", slots=1, received=0)
        job = pair.submit(other)
        held = runner.take()
        runner.tell("running", **held)
        one.kill()
    wait_for(pair, other, job, "failed", seconds=LEASE_S + 5)
