"""A runner's link to the real server: claims, live output, cancel, results, and every way to lose the connection."""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import anyio
import pytest
from tests.integration.server.channel.conftest import Rack, rack

from metalmark.client import ChannelDeadlines, ConnectionSettings, ServerAddress, parse_runner_key
from metalmark.model import ChannelRefused, JobEvent
from metalmark.runner import Link
from metalmark.runner.runner_identity import RunnerIdentity
from metalmark.system import in_thread
from metalmark.testing.faulty_line import FaultyLine, Line
from metalmark.testing.postgresql import Cluster
from metalmark.testing.public_runner import PublicRunner
from metalmark.testing.running_server import running_server
from metalmark.testing.scripted_hands import QUICK, NotedLink, NotedUpdates, ScriptedHands, identity, scripted_hands

pytestmark = pytest.mark.anyio

DEADLINES = ChannelDeadlines(open_s=2, send_s=2, ping_every_s=0.3, ping_within_s=0.7, close_s=0.5)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def racked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rack]:
    """A server with leases of three seconds, once on each engine."""
    folder = tmp_path_factory.mktemp("link")
    settings: dict[str, Any] = {"jobs": {"heartbeat_timeout_s": 3, "grace_s": 1}}
    if request.param == "sqlite":
        with rack(folder, f"sqlite:///{folder}/server.db", **settings) as made:
            yield made
        return
    cluster: Cluster = request.getfixturevalue("postgresql")
    with cluster.database() as url, rack(folder, url, **settings) as made:
        yield made


class Runner:
    """A runner at work: its link runs in the background."""

    def __init__(self, hands: ScriptedHands, observer: NotedLink, updates: NotedUpdates) -> None:
        self.hands = hands
        self.observer = observer
        self.updates = updates


@asynccontextmanager
async def at_work(
    url: str, runner: PublicRunner, folder: Path, *, slots: int = 1, who: RunnerIdentity | None = None
) -> AsyncIterator[Runner]:
    settings = ConnectionSettings(
        address=ServerAddress.parse(url), credential=parse_runner_key(runner.key, source="test")
    )
    observer, updates = NotedLink(), NotedUpdates()
    async with scripted_hands(folder, slots=slots) as hands:
        link = Link(
            settings=settings,
            identity=who or identity(runner.runner),
            jobs=hands.jobs,
            updates=updates,
            environment={},
            observer=observer,
            pace=QUICK,
            deadlines=DEADLINES,
            jitter=lambda: 0.1,
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(link.run)
            yield Runner(hands, observer, updates)
            tasks.cancel_scope.cancel()


def line_of(racked: Rack) -> FaultyLine:
    return FaultyLine(int(racked.server.url.rpartition(":")[2]))


def live_output(racked: Rack, job: str) -> bytes:
    """What was streamed of a job, as a follower reads it."""
    project = racked.floor.project
    with racked.server.client() as client:
        text = client.get(f"/v0/projects/{project}/jobs/{job}/output").text
    found = b""
    for block in text.split("\n\n"):
        if block.startswith("event: output") or "event: output\n" in block:
            import json

            data = json.loads(next(row[6:] for row in block.split("\n") if row.startswith("data: ")))
            found += base64.b64decode(data["base64"]) if "base64" in data else data["text"].encode()
    return found


async def test_job_goes_all_the_way(racked: Rack, tmp_path: Path) -> None:
    spec = racked.own_spec()
    runner = racked.runner(spec=spec)
    async with at_work(racked.server.url, runner, tmp_path) as work:
        job = racked.submit(spec)
        (script,) = await work.hands.started()
        assert script.job.assignment is not None
        assert (script.job.assignment.timeout_s, script.job.lease) == (60, 1)
        assert script.job.assignment.token
        assert racked.status(job) == "claimed"
        script.begin()
        script.say("warm ")
        await work.hands.until(lambda: racked.status(job) == "running")
        script.say("up\n")
        script.complete(stdout='{"a": {"b": {"value": 1}}}')
        await work.hands.until(lambda: not work.hands.jobs.holding())
        assert racked.status(job) == "processed"
        assert racked.output(job)["results"] == [{"exit_code": 0, "stdout": '{"a": {"b": {"value": 1}}}'}]
        assert live_output(racked, job) == b"warm up\n"
        assert work.updates.acknowledgements == 1
        assert list(tmp_path.glob("*.end")) == []
        # The slot is free again.
        second = racked.submit(spec)
        await work.hands.until(lambda: UUID(second) in work.hands.scripts)


async def test_slots_are_filled_and_no_more(racked: Rack, tmp_path: Path) -> None:
    spec = racked.own_spec()
    runner = racked.runner(spec=spec)
    jobs = [racked.submit(spec, priority=200) for _ in range(5)]
    async with at_work(racked.server.url, runner, tmp_path, slots=3) as work:
        await work.hands.started(3)
        await anyio.sleep(0.3)
        assert len(work.hands.scripts) == 3
        for script in list(work.hands.scripts.values()):
            script.complete()
        for script in (await work.hands.started(5))[3:]:
            script.complete()
        await work.hands.until(lambda: not work.hands.jobs.holding())
    assert {racked.status(job) for job in jobs} == {"processed"}
    assert len(work.hands.executed) == 5


async def test_heartbeats_keep_the_lease(racked: Rack, tmp_path: Path) -> None:
    spec = racked.own_spec()
    async with at_work(racked.server.url, racked.runner(spec=spec), tmp_path) as work:
        job = racked.submit(spec)
        (script,) = await work.hands.started()
        # Longer than the lease.
        await anyio.sleep(4)
        assert (racked.status(job), script.job.canceled_because) == ("claimed", None)
        script.complete()
        await work.hands.until(lambda: racked.status(job) == "processed")


async def test_cancel_arrives_at_once(racked: Rack, tmp_path: Path) -> None:
    spec = racked.own_spec()
    async with at_work(racked.server.url, racked.runner(spec=spec), tmp_path) as work:
        job = racked.submit(spec)
        (script,) = await work.hands.started()
        script.begin()
        await work.hands.until(lambda: racked.status(job) == "running")
        begun = time.monotonic()
        racked.move(job, JobEvent.CANCEL)
        await work.hands.until(lambda: script.job.canceled_because)
        assert time.monotonic() - begun < 1
        await work.hands.until(lambda: not work.hands.jobs.holding())
        assert racked.status(job) == "canceled"


async def test_failure_of_the_machine_gives_the_job_back_once(racked: Rack, tmp_path: Path) -> None:
    spec = racked.own_spec()
    async with at_work(racked.server.url, racked.runner(spec=spec), tmp_path) as work:
        job = racked.submit(spec, retry_allowed=True)
        (first,) = await work.hands.started()
        first.fail("no KVM", infrastructure=True)
        await work.hands.until(lambda: len(work.hands.executed) == 2)
        second = work.hands.scripts[UUID(job)]
        assert (second is not first, second.job.lease) == (True, 2)
        second.begin()
        second.fail("exit code 3")
        await work.hands.until(lambda: not work.hands.jobs.holding())
        assert racked.status(job) == "failed"
        assert racked.output(job)["error"] == "exit code 3"


async def test_large_results_are_uploaded(racked: Rack, tmp_path: Path) -> None:
    spec = racked.own_spec()
    async with at_work(racked.server.url, racked.runner(spec=spec), tmp_path) as work:
        job = racked.submit(spec)
        (script,) = await work.hands.started()
        script.begin()
        text = "x" * (20 * 1024 * 1024)
        script.complete(stdout="{}", stderr=text)
        await work.hands.until(lambda: not work.hands.jobs.holding())
        assert racked.status(job) == "processed"
        assert racked.output(job)["results"] == [{"exit_code": 0, "stdout": "{}", "stderr": text}]


@pytest.mark.parametrize("fault", [Line.CUT, Line.STALLED, Line.DEAF_SERVER, Line.DEAF_CLIENT])
async def test_lost_connection_in_mid_job_loses_nothing(racked: Rack, tmp_path: Path, fault: Line) -> None:
    spec = racked.own_spec()
    with line_of(racked) as line:
        async with at_work(line.url, racked.runner(spec=spec), tmp_path) as work:
            job = racked.submit(spec)
            (script,) = await work.hands.started()
            script.begin()
            script.say("before ")
            await work.hands.until(lambda: live_output(racked, job) == b"before ")
            line.become(fault)
            script.say("while ")
            await work.hands.until(lambda: any(event.startswith("lost") for event in work.observer.events))
            line.become(Line.WORKS)
            script.say("after")
            await work.hands.until(lambda: live_output(racked, job) == b"before while after")
            assert script.job.canceled_because is None
            script.complete()
            await work.hands.until(lambda: not work.hands.jobs.holding())
            assert racked.status(job) == "processed"
            assert work.hands.executed == [UUID(job)]


async def test_end_of_a_job_survives_the_connection(racked: Rack, tmp_path: Path) -> None:
    """The end comes while nobody can be told, for longer than the lease: it counts all the same."""
    spec = racked.own_spec()
    with line_of(racked) as line:
        async with at_work(line.url, racked.runner(spec=spec), tmp_path) as work:
            job = racked.submit(spec)
            (script,) = await work.hands.started()
            script.begin()
            await work.hands.until(lambda: racked.status(job) == "running")
            line.become(Line.CUT)
            script.complete()
            await work.hands.until(lambda: racked.status(job) == "failed")
            line.become(Line.WORKS)
            await work.hands.until(lambda: not work.hands.jobs.holding())
            assert racked.status(job) == "processed"


async def test_job_that_was_given_to_another_is_dropped(racked: Rack, tmp_path: Path) -> None:
    spec = racked.own_spec()
    with line_of(racked) as line:
        async with at_work(line.url, racked.runner(spec=spec), tmp_path / "a") as lost:
            job = racked.submit(spec, retry_allowed=True)
            (script,) = await lost.hands.started()
            line.become(Line.CUT)
            async with at_work(racked.server.url, racked.runner(spec=spec), tmp_path / "b") as heir:
                # The benchmark had not begun: when the lease ends the job goes back to the queue.
                (second,) = await heir.hands.started()
                assert second.job.lease == 2
                line.become(Line.WORKS)
                await lost.hands.until(lambda: not lost.hands.jobs.holding())
                assert script.job.is_lost
                second.begin()
                second.complete()
                await heir.hands.until(lambda: not heir.hands.jobs.holding())
        assert racked.status(job) == "processed"
        assert list((tmp_path / "a").glob("*.end")) == []


async def test_ends_of_an_earlier_process_are_told(racked: Rack, tmp_path: Path) -> None:
    spec = racked.own_spec()
    runner = racked.runner(spec=spec)
    with line_of(racked) as line:
        async with at_work(line.url, runner, tmp_path) as work:
            job = racked.submit(spec)
            (script,) = await work.hands.started()
            script.begin()
            await work.hands.until(lambda: racked.status(job) == "running")
            line.become(Line.CUT)
            script.complete()
            await work.hands.until(lambda: script.job.end is not None)
    assert len(list(tmp_path.glob("*.end"))) == 1
    async with at_work(racked.server.url, runner, tmp_path) as work:
        await work.hands.until(lambda: not work.hands.jobs.holding())
    assert racked.status(job) == "processed"


async def test_server_restarts_in_mid_job(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"jobs": {"heartbeat_timeout_s": 30}}
    database = f"sqlite:///{tmp_path}/server.db"
    outer = rack(tmp_path / "server", database, **settings)
    first = await in_thread(outer.__enter__)
    spec = first.own_spec()
    runner = first.runner(spec=spec)
    settings["server"] = {"bind": f"127.0.0.1:{first.server.url.rpartition(':')[2]}"}
    async with at_work(first.server.url, runner, tmp_path / "spool") as work:
        job = first.submit(spec)
        (script,) = await work.hands.started()
        script.begin()
        script.say("one ")
        await work.hands.until(lambda: live_output(first, job) == b"one ")
        await in_thread(outer.__exit__, None, None, None)
        await work.hands.until(lambda: any("1001" in event for event in work.observer.events))
        script.say("two")
        again = running_server(tmp_path / "server", database=database, settings=settings)
        server = await in_thread(again.__enter__)
        try:
            second = Rack(server, first.floor, spec)
            await work.hands.until(lambda: live_output(second, job) == b"one two")
            script.complete()
            await work.hands.until(lambda: not work.hands.jobs.holding())
            assert second.status(job) == "processed"
            assert (second.job(job).retries, work.hands.executed) == (0, [UUID(job)])
        finally:
            await in_thread(again.__exit__, None, None, None)


async def test_server_that_has_had_enough_connections_is_waited_for(tmp_path: Path) -> None:
    limited: dict[str, Any] = {"limits": {"runner_connections": 1}}
    with rack(tmp_path / "server", f"sqlite:///{tmp_path}/server.db", **limited) as small:
        with line_of(small) as line:
            async with at_work(line.url, small.runner(), tmp_path / "spool") as work:
                await work.hands.until(lambda: "confirmed" in work.observer.events)
                line.reset()
                await work.hands.until(lambda: len(work.observer.events) >= 4)
                assert work.observer.events[-1].endswith("answered 429")


async def test_wrong_key_is_an_error_that_says_so(racked: Rack, tmp_path: Path) -> None:
    runner = PublicRunner(racked.server.url, uuid4(), "bencher_runner_" + "0" * 30)
    with pytest.raises(ExceptionGroup) as caught:
        async with at_work(racked.server.url, runner, tmp_path):
            await anyio.sleep(20)
    error = caught.value
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, ChannelRefused)
    assert "401" in error.found
    assert runner.key not in repr(error) + error.hint + error.why


async def test_second_process_of_a_runner_takes_over(racked: Rack, tmp_path: Path) -> None:
    """A process that is gone for its network, and not for itself, does not keep the next one out."""
    spec = racked.own_spec()
    runner = racked.runner(spec=spec)
    async with at_work(racked.server.url, runner, tmp_path / "a") as first:
        await first.hands.until(lambda: "confirmed" in first.observer.events)
        async with at_work(racked.server.url, runner, tmp_path / "b") as second:
            await second.hands.until(lambda: "confirmed" in second.observer.events)
            job = racked.submit(spec)
            await second.hands.until(lambda: first.hands.scripts or second.hands.scripts)
            for script in [*first.hands.scripts.values(), *second.hands.scripts.values()]:
                script.complete()
            await second.hands.until(lambda: racked.status(job) == "processed")
            assert len(first.hands.executed) + len(second.hands.executed) == 1


@pytest.fixture
def pair(postgresql: Cluster, tmp_path: Path) -> Iterator[tuple[Rack, Rack]]:
    """Two servers on one database."""
    storage = str(tmp_path / "blobs")
    settings: dict[str, Any] = {"jobs": {"heartbeat_timeout_s": 20}}
    with (
        postgresql.database() as database,
        rack(tmp_path / "one", database, storage=storage, **settings) as one,
        running_server(tmp_path / "two", database=database, storage=storage, settings=settings, has_users=True) as two,
    ):
        yield one, Rack(replace(two, admin_key=one.server.admin_key), one.floor, one.spec)


async def test_job_moves_with_its_runner_from_one_server_to_the_other(pair: tuple[Rack, Rack], tmp_path: Path) -> None:
    one, other = pair
    spec = one.own_spec()
    with line_of(one) as line:
        async with at_work(line.url, one.runner(spec=spec), tmp_path / "spool") as work:
            first, second = (one.submit(spec) for _ in range(2))
            (script,) = await work.hands.started()
            script.begin()
            script.say("one ")
            await work.hands.until(lambda: live_output(other, first) == b"one ")
            # What a balancer does when a server goes: the next connection is to the other.
            line._server_port = int(other.server.url.rpartition(":")[2])
            line.reset()
            script.say("two")
            await work.hands.until(lambda: live_output(one, first) == b"one two")
            script.complete(stdout="{}", stderr="x" * 2_000_000)
            await work.hands.started(2)
            # The results were on their way before the next benchmark began.
            assert one.status(first) == "processed"
            assert len(one.output(first)["results"][0]["stderr"]) == 2_000_000
            begun = time.monotonic()
            one.move(second, JobEvent.CANCEL)
            await work.hands.until(lambda: work.hands.scripts[UUID(second)].job.canceled_because)
            assert time.monotonic() - begun < 1
            await work.hands.until(lambda: not work.hands.jobs.holding())
            assert (other.status(first), other.status(second)) == ("processed", "canceled")
            assert work.hands.executed == [UUID(first), UUID(second)]
