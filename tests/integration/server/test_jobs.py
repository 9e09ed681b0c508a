"""Jobs over REST: listed, viewed, canceled and retried, by those who may."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from tests.integration.server.engines import ENGINES, server_of

from metalmark.model import JobEvent, public_runner
from metalmark.server import ServerContext
from metalmark.server.job_desk import Ending, JobDesk
from metalmark.store import ClaimedJob, ClaimRules, LeaseHolder, find_job, find_queue_position
from metalmark.testing.running_server import RunningServer, running_server
from metalmark.wire import IterationOutput, JobOutput

TIMES: dict[str, Any] = {"start_time": "2026-03-01T10:00:00Z", "end_time": "2026-03-01T10:00:42Z", "results": []}
SPEC = {"os": "linux", "architecture": "x86_64", "sandbox": "firecracker", "cpu": 2, "memory": 2**32, "disk": 2**33}
NOWHERE = "01970000-0000-7000-8000-000000000000"
numbers = itertools.count(1)


@pytest.fixture(scope="module", params=ENGINES)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with server_of(request, tmp_path_factory) as running:
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture
def stranger(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client(None) as client:
        yield client


class Shop:
    """A project with a spec of its own, and a runner that serves it."""

    def __init__(self, server: RunningServer, client: httpx.Client) -> None:
        self.server = server
        self.client = client
        self.name = f"shop-{next(numbers)}"
        spec = client.post("/v0/specs", json={"name": self.name, "slug": self.name, **SPEC})
        assert spec.status_code == 201, spec.text
        self.spec = spec.json()["uuid"]

    @property
    def jobs(self) -> str:
        return f"/v0/projects/{self.name}/jobs"

    def submit(self, **job: Any) -> str:
        body = {
            **TIMES,
            "project": self.name,
            "context": {"bencher.dev/v0/repo/name": self.name},
            "job": {"image": "a@sha256:" + "0a" * 32, "spec": self.name, **job},
        }
        answer = self.client.post("/v0/run", json=body)
        assert answer.status_code == 201, answer.text
        uuid: str = answer.json()["job"]
        return uuid

    def add_runner(self) -> UUID:
        runner = self.client.post("/v0/runners", json={"name": self.name}).json()["uuid"]
        assert self.client.post(f"/v0/runners/{runner}/specs", json={"spec": self.spec}).status_code == 201
        return UUID(runner)

    def claim(self, runner: UUID) -> ClaimedJob:
        async def work(context: ServerContext) -> ClaimedJob | None:
            return await context.dispatcher.wait_for_job(runner=runner, capabilities=public_runner(), deadline_s=0)

        claimed = self.server.call(work)
        assert claimed is not None
        return claimed

    def end(self, claimed: ClaimedJob, ending: Ending) -> None:
        async def work(context: ServerContext) -> None:
            holder = LeaseHolder(runner=claimed.runner, lease=claimed.lease)
            await JobDesk(context).start(claimed.job, holder, began=True)
            await JobDesk(context).end(claimed.job, holder, ending)

        self.server.call(work)

    def view(self, job: str, by: httpx.Client | None = None) -> dict[str, Any]:
        answer = (by or self.client).get(f"{self.jobs}/{job}")
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body


@pytest.fixture
def shop(server: RunningServer, client: httpx.Client) -> Shop:
    return Shop(server, client)


def test_a_pending_job_says_what_it_waits_for(shop: Shop) -> None:
    job = shop.submit()
    seen = shop.view(job)
    assert (seen["status"], seen["pending"]["cause"], seen["spec"]["slug"]) == ("pending", "no_runner", shop.name)
    assert [seen[name] for name in ("runner", "claimed", "started", "completed")] == [None] * 4
    assert "output" not in seen
    assert "config" not in seen
    runner = shop.add_runner()
    assert shop.view(job)["pending"]["cause"] == "runners_away"
    shop.claim(runner)
    seen = shop.view(job)
    assert (seen["status"], seen["runner"], seen["pending"], seen["lease"]) == ("claimed", str(runner), None, 1)


def test_a_pending_job_says_its_place_in_the_queue(shop: Shop) -> None:
    first, low, high, last = (shop.submit(priority=priority) for priority in (100, 50, 200, 100))
    order = [high, first, last, low]
    assert [shop.view(job)["pending"]["position"] for job in order] == [1, 2, 3, 4]
    # Another spec's queue is another one.
    assert Shop(shop.server, shop.client).submit() not in order

    async def by_age(context: ServerContext) -> list[int | None]:
        # As if all had waited too long: then nothing but age counts.
        rules = ClaimRules(starvation_s=-60)
        async with context.store.read() as connection:
            records = [await find_job(connection, UUID(job)) for job in (first, low, high, last)]
            return [
                await find_queue_position(connection, record, rules, now=context.clock.now())
                for record in records
                if record is not None
            ]

    assert shop.server.call(by_age) == [1, 2, 3, 4]
    runner = shop.add_runner()
    for job in order:
        assert shop.view(job)["pending"]["position"] == 1
        assert str(shop.claim(runner).job) == job


def test_a_stream_tells_what_a_pending_job_waits_for_and_that_the_queue_moves(shop: Shop) -> None:
    ahead, job = shop.submit(), shop.submit()
    seen: list[tuple[str, Any]] = []
    with shop.client.stream("GET", f"{shop.jobs}/{job}/output", params={"follow": "true"}) as response:
        kind = ""
        for line in response.iter_lines():
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: "):
                seen.append((kind, json.loads(line.removeprefix("data: "))))
                if len(seen) == 1:
                    assert shop.client.post(f"{shop.jobs}/{ahead}/cancel").status_code == 200
                elif len(seen) == 2:
                    assert shop.client.post(f"{shop.jobs}/{job}/cancel").status_code == 200
    assert [kind for kind, _ in seen] == ["pending", "pending", "end"]
    assert [data["position"] for kind, data in seen if kind == "pending"] == [2, 1]
    assert (seen[0][1]["cause"], seen[2][1]["status"]) == ("no_runner", "canceled")


def test_output_is_for_those_who_signed_in(shop: Shop, stranger: httpx.Client) -> None:
    job = shop.submit()
    output = JobOutput(results=(IterationOutput(exit_code=0, stdout="4 µs\n"),))
    shop.end(shop.claim(shop.add_runner()), Ending(event=JobEvent.COMPLETE, output=output))
    seen = shop.view(job)
    assert seen["status"] == "processed"
    assert seen["output"] == {"results": [{"exit_code": 0, "stdout": "4 µs\n"}]}
    assert "output" not in shop.view(job, stranger)
    (listed,) = shop.client.get(shop.jobs).json()
    assert listed["uuid"] == job
    assert "output" not in listed


def test_jobs_are_listed_in_pages_by_state_and_age(shop: Shop) -> None:
    jobs = [shop.submit() for _ in range(3)]
    answer = shop.client.get(shop.jobs, params={"per_page": 2})
    assert [job["uuid"] for job in answer.json()] == jobs[:0:-1]
    assert answer.headers["x-total-count"] == "3"
    oldest = shop.client.get(shop.jobs, params={"direction": "asc", "per_page": 1}).json()
    assert [job["uuid"] for job in oldest] == jobs[:1]
    shop.client.post(f"{shop.jobs}/{jobs[1]}/cancel")
    canceled = shop.client.get(shop.jobs, params={"status": "canceled"})
    assert ([job["uuid"] for job in canceled.json()], canceled.headers["x-total-count"]) == ([jobs[1]], "1")
    for wrong in ({"status": "done"}, {"sort": "name"}, {"direction": "up"}, {"per_page": "256"}):
        assert shop.client.get(shop.jobs, params=wrong).status_code == 400, wrong


def test_a_job_is_canceled_once_and_for_all(shop: Shop) -> None:
    job = shop.submit()
    first = shop.client.post(f"{shop.jobs}/{job}/cancel")
    assert (first.status_code, first.json()["status"]) == (200, "canceled")
    assert first.json()["end_reason"] == "canceled_by_user"
    assert shop.client.post(f"{shop.jobs}/{job}/cancel").json()["completed"] == first.json()["completed"]
    done = shop.submit()
    shop.end(shop.claim(shop.add_runner()), Ending(event=JobEvent.COMPLETE, output=JobOutput(results=())))
    assert shop.client.post(f"{shop.jobs}/{done}/cancel").status_code == 409


def test_a_job_tells_what_happened_to_it(shop: Shop) -> None:
    job = shop.submit()
    path = f"/v0/projects/{shop.name}/jobs/{job}"
    assert shop.client.get(path).json()["events"] == []
    assert shop.client.post(f"{path}/cancel").status_code == 200
    [event] = shop.client.get(path).json()["events"]
    at = event.pop("at")
    assert at >= shop.client.get(path).json()["created"]
    told = {"event": "cancel", "before": "pending", "after": "canceled", "lease": 0, "runner": None}
    assert event == {**told, "reason": "canceled_by_user"}
    assert all(listed["events"] is None for listed in shop.client.get(f"/v0/projects/{shop.name}/jobs").json())


def test_a_retry_is_a_new_job_that_points_at_the_old_one(shop: Shop) -> None:
    job = shop.submit(iter=3, cmd=["bench"], timeout=77)
    assert shop.client.post(f"{shop.jobs}/{job}/retry").status_code == 409
    runner = shop.add_runner()
    shop.end(shop.claim(runner), Ending(event=JobEvent.FAIL, output=JobOutput(results=(), error="x"), error="x"))
    old = shop.view(job)
    assert (old["status"], old["error"]) == ("failed", "x")
    answer = shop.client.post(f"{shop.jobs}/{job}/retry")
    assert answer.status_code == 201
    new = answer.json()
    assert (new["status"], new["retry_of"], new["error"]) == ("pending", job, None)
    assert new["report"] != old["report"]
    again = shop.claim(runner)
    assert str(again.job) == new["uuid"]
    assert (again.config["cmd"], again.config["iter"], again.timeout_s) == (["bench"], 3, 77)
    reports = shop.client.get(f"/v0/projects/{shop.name}/reports").json()
    assert {report["job"] for report in reports} == {job, new["uuid"]}
    assert shop.client.patch(f"/v0/specs/{shop.name}", json={"archived": True}).status_code == 200
    assert shop.client.post(f"{shop.jobs}/{job}/retry").status_code == 409


def test_retries_count_as_runs(tmp_path: Path) -> None:
    with running_server(tmp_path / "server", settings={"limits": {"runs": 2}}) as server, server.client() as client:
        shop = Shop(server, client)
        job = shop.submit()
        assert client.post(f"{shop.jobs}/{job}/cancel").status_code == 200
        assert client.post(f"{shop.jobs}/{job}/retry").status_code == 201
        refused = client.post(f"{shop.jobs}/{job}/retry")
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 0


def test_who_may_not_change_jobs(shop: Shop, stranger: httpx.Client) -> None:
    job = shop.submit()
    for act in ("cancel", "retry"):
        assert stranger.post(f"{shop.jobs}/{job}/{act}").status_code == 401
        assert shop.client.post(f"{shop.jobs}/{NOWHERE}/{act}").status_code == 404
        assert shop.client.post(f"/v0/projects/nowhere/jobs/{job}/{act}").status_code == 404
    other = Shop(shop.server, shop.client)
    other.submit()
    # A job is found in its own project only.
    assert shop.client.get(f"{other.jobs}/{job}").status_code == 404
    assert shop.client.post(f"{other.jobs}/{job}/cancel").status_code == 404
    assert shop.view(job)["status"] == "pending"
