"""A runner's link to a server that speaks the public messages only."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metalmark.client import ChannelDeadlines, ConnectionSettings, ServerAddress, parse_runner_key
from metalmark.model import ChannelRefused
from metalmark.runner import Link
from metalmark.testing.contract_server import ContractServer, contract_server
from metalmark.testing.scripted_hands import (
    QUICK,
    NotedLink,
    NotedUpdates,
    Script,
    ScriptedHands,
    identity,
    scripted_hands,
)

pytestmark = pytest.mark.anyio
KEY = "bencher_runner_0123456789abcdefghijABCDEFGHIJ"
DEADLINES = ChannelDeadlines(open_s=2, send_s=2, ping_every_s=0.3, ping_within_s=0.7, close_s=0.5)


class Runner:
    def __init__(self, hands: ScriptedHands, observer: NotedLink, updates: NotedUpdates) -> None:
        self.hands, self.observer, self.updates = hands, observer, updates

    def lost(self) -> list[str]:
        return [event for event in self.observer.events if event.startswith("lost")]


@asynccontextmanager
async def at_work(
    server: ContractServer, folder: Path, *, slots: int = 1, key: str = KEY, jitter: float = 0.05, **pace: Any
) -> AsyncIterator[Runner]:
    connection = ConnectionSettings(
        address=ServerAddress.parse(server.url), credential=parse_runner_key(key, source="test")
    )
    observer, updates = NotedLink(), NotedUpdates()
    async with scripted_hands(folder, slots=slots) as hands:
        link = Link(
            settings=connection,
            identity=identity(server.runner),
            jobs=hands.jobs,
            updates=updates,
            environment={},
            observer=observer,
            pace=replace(QUICK, **pace),
            deadlines=DEADLINES,
            jitter=lambda: jitter,
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(link.run)
            yield Runner(hands, observer, updates)
            tasks.cancel_scope.cancel()


async def test_jobs_one_after_the_other(tmp_path: Path) -> None:
    async with contract_server(KEY) as server, at_work(server, tmp_path, slots=3) as work:
        first, second = server.submit(), server.submit()
        (script,) = await work.hands.started()
        assignment = script.job.assignment
        assert assignment is not None
        assert (assignment.job, assignment.lease, assignment.token) == (first.id, 0, "a.b.c")
        await work.hands.until(lambda: first.status == "running")
        await work.hands.until(lambda: server.events("executing").count("heartbeat") >= 3)
        assert second.status == "pending", "such a server has one job a connection, whatever the slots"
        script.complete(stdout=None, stderr="warm", stdout_base64="/w==", output_base64={"a": "aGk="}, wall_s=1.5)
        await work.hands.until(lambda: second.status == "running")
        assert (first.status, first.ends) == ("processed", ["processed"])
        found = {name: value for name, value in (first.results or [{}])[0].items() if value is not None}
        assert found == {"exit_code": 0, "stdout": "\ufffd", "stderr": "warm", "output": {"a": "hi"}}
        work.hands.scripts[second.id].fail("exit code 2")
        await work.hands.until(lambda: second.status == "failed")
        assert second.error == "exit code 2"
        await work.hands.until(lambda: server.events()[-1] == "ready")
        assert work.updates.acknowledgements == 1
        assert server.connections == 1


async def test_no_job_is_asked_for_again_on_the_same_connection(tmp_path: Path) -> None:
    async with contract_server(KEY) as server, at_work(server, tmp_path, public_poll_s=1) as work:
        await work.hands.until(lambda: server.events().count("ready") >= 3)
        said = server.said[0][1]
        assert (said["poll_timeout"], said["runner"]["checksum"]) == (1, "c" * 64)
        assert (server.connections, work.lost()) == (1, [])


async def test_cancel_comes_with_a_heartbeat(tmp_path: Path) -> None:
    async with contract_server(KEY) as server, at_work(server, tmp_path) as work:
        job = server.submit()
        (script,) = await work.hands.started()
        await work.hands.until(lambda: job.status == "running")
        job.become("canceled")
        await work.hands.until(lambda: script.job.canceled_because)
        await work.hands.until(lambda: not work.hands.jobs.holding())
        assert job.ends == ["canceled"]
        await work.hands.until(lambda: server.events()[-2:] == ["canceled", "ready"])
        assert work.lost() == []


async def test_result_is_told_again_until_it_is_acknowledged(tmp_path: Path) -> None:
    async with contract_server(KEY, swallowed_acks=3) as server:
        async with at_work(server, tmp_path, public_ack_s=0.2) as work:
            job = server.submit()
            (script,) = await work.hands.started()
            script.complete()
            await work.hands.until(lambda: not work.hands.jobs.holding())
            assert server.events().count("completed") == 4
            assert (job.ends, server.connections) == (["processed"], 1)
            # Kept on disk for as long as that.
            assert list(tmp_path.glob("*.end")) == []


async def test_result_is_told_again_on_a_new_connection_and_before_anything_else(tmp_path: Path) -> None:
    async with contract_server(KEY, cut_before_ack=2, swallowed_acks=7) as server:
        async with at_work(server, tmp_path, public_ack_s=0.1) as work:
            job, other = server.submit(), server.submit()
            (script,) = await work.hands.started()
            script.complete()
            await work.hands.until(lambda: other.status == "running")
            assert job.ends == ["processed"]
            assert work.hands.executed == [job.id, other.id]
            # Cut twice, six times unanswered, once more on a fourth connection; the fifth is like the first again.
            assert server.connections == 5
            assert server.events().count("completed") == 2 + 6 + 2


async def test_job_survives_the_loss_of_its_connection(tmp_path: Path) -> None:
    async with contract_server(KEY, silence_s=0.5) as server, at_work(server, tmp_path) as work:
        job = server.submit()
        (script,) = await work.hands.started()
        await work.hands.until(lambda: job.status == "running")
        server.cut()
        await work.hands.until(lambda: job.status == "failed")
        assert script.job.canceled_because is None
        await work.hands.until(lambda: server.connections >= 2)
        script.complete()
        await work.hands.until(lambda: not work.hands.jobs.holding())
        assert job.ends == ["failed", "processed"]
        assert server.events("polling") == []


async def test_results_of_an_earlier_process_come_first(tmp_path: Path) -> None:
    async with contract_server(KEY) as server:
        async with at_work(server, tmp_path) as work:
            job = server.submit()
            (script,) = await work.hands.started()
            await work.hands.until(lambda: job.status == "running")
            server.handshakes = [(503, {})] * 1000
            server.cut()
            script.complete()
            await work.hands.until(lambda: script.job.end is not None)
        server.handshakes = []
        server.said.clear()
        async with at_work(server, tmp_path) as work:
            await work.hands.until(lambda: "ready" in server.events())
            assert server.events()[0] == "completed"
        assert job.ends == ["processed"]


async def test_canceled_job_that_the_server_failed_meanwhile_is_no_endless_loop(tmp_path: Path) -> None:
    """No message leads from failed to canceled, and the server drops who says it: so it is told as failed."""
    async with contract_server(KEY) as server, at_work(server, tmp_path) as work:
        job = server.submit()
        (script,) = await work.hands.started()
        await work.hands.until(lambda: job.status == "running")
        server.cut()
        job.become("failed")
        script.job.cancel("the runner is on its way out")
        await work.hands.until(lambda: not work.hands.jobs.holding())
        assert job.ends == ["failed"]
        await work.hands.until(lambda: server.events()[-2:] == ["failed", "ready"])


async def test_results_that_the_server_does_not_take_are_told_as_a_failure(tmp_path: Path) -> None:
    async with contract_server(KEY) as server, at_work(server, tmp_path) as work:
        job = server.submit()
        (script,) = await work.hands.started()
        await work.hands.until(lambda: job.status == "running")
        script.complete(stdout="x" * (5 * 1024 * 1024))
        await work.hands.until(lambda: not work.hands.jobs.holding())
        assert job.status == "failed"
        assert "does not take results of 52" in str(job.error)


async def test_results_beyond_any_message_are_not_even_offered(tmp_path: Path) -> None:
    async with contract_server(KEY) as server, at_work(server, tmp_path) as work:
        job = server.submit()
        (script,) = await work.hands.started()
        await work.hands.until(lambda: job.status == "running")
        script.complete(stdout="x" * (65 * 1024 * 1024))
        await work.hands.until(lambda: not work.hands.jobs.holding())
        assert (job.ends, server.connections, work.lost()) == (["failed"], 1, [])


async def test_offer_of_an_update_is_passed_on_and_jobs_come_all_the_same(tmp_path: Path) -> None:
    offer = {"version": "9.9.9", "url": "https://example.org/runner", "checksum": "b" * 64}
    async with contract_server(KEY, offer=offer) as server, at_work(server, tmp_path) as work:
        job = server.submit()
        (script,) = await work.hands.started()
        assert work.updates.offers == [("9.9.9", "https://example.org/runner", "b" * 64)]
        script.complete()
        await work.hands.until(lambda: job.status == "processed")
        assert len(work.updates.offers) == 1


async def test_busy_server_is_waited_for(tmp_path: Path) -> None:
    refusals = [(503, {"Retry-After": "1"}), (429, {"Retry-After": "1"}), (502, {})]
    async with contract_server(KEY, handshakes=refusals) as server, at_work(server, tmp_path) as work:
        await work.hands.until(lambda: "ready" in server.events())
        assert [event.split()[-1] for event in work.lost()] == ["503", "429", "502"]


@pytest.mark.parametrize("status", [401, 403, 404, 301])
async def test_refusal_is_an_error(tmp_path: Path, status: int) -> None:
    async with contract_server(KEY, handshakes=[(status, {"Location": "http://elsewhere.example.com/"})]) as server:
        with pytest.raises(ExceptionGroup) as caught:
            async with at_work(server, tmp_path):
                await anyio.sleep(20)
        assert caught.group_contains(ChannelRefused, match=str(status))
        assert server.connections == 0


async def test_refusal_while_a_job_runs_is_borne_until_it_is_over(tmp_path: Path) -> None:
    async with contract_server(KEY) as server:
        with pytest.raises(ExceptionGroup) as caught:
            async with at_work(server, tmp_path, jitter=0.001) as work:
                job = server.submit()
                (script,) = await work.hands.started()
                server.handshakes = [(401, {})] * 100_000
                server.cut()
                await work.hands.until(lambda: len(work.lost()) >= 3)
                assert script.job.canceled_because is None
                script.complete()
                await anyio.sleep(20)
        assert caught.group_contains(ChannelRefused, match="401")
        assert job.status == "running"
        assert len(list(tmp_path.glob("*.end"))) == 1


async def test_server_that_hangs_up_on_a_key_is_waited_for_with_a_word_about_it(tmp_path: Path) -> None:
    async with contract_server(KEY, hangs_up=True) as server, at_work(server, tmp_path) as work:
        await work.hands.until(lambda: len(work.lost()) >= 2)
        server.hangs_up = False
        await work.hands.until(lambda: "ready" in server.events())


async def test_draining_runner_leaves_the_poll_and_ends_its_job(tmp_path: Path) -> None:
    async with contract_server(KEY) as server, at_work(server, tmp_path, public_poll_s=30) as work:
        await work.hands.until(lambda: "ready" in server.events())
        work.hands.jobs.stop_claiming()
        await work.hands.until(lambda: server.connections == 2)
        server.submit()
        await anyio.sleep(0.3)
        assert work.hands.executed == []
        work.hands.jobs.resume_claiming()
        await work.hands.started()


async def test_silent_server_is_left(tmp_path: Path) -> None:
    """A server whose process is stopped: its sockets are open, and nothing comes."""
    async with contract_server(KEY) as server, at_work(server, tmp_path) as work:
        job = server.submit()
        (script,) = await work.hands.started()
        await work.hands.until(lambda: job.status == "running")
        for connection in list(server._open):
            connection.transport.pause_reading()
        await work.hands.until(lambda: len(work.lost()) >= 1, within_s=10)
        assert script.job.canceled_because is None
        script.complete()
        await work.hands.until(lambda: job.status == "processed")
        assert work.hands.executed == [UUID(str(job.id))]


# The whole, against every order of events

EVENTS = (
    *("submit", "submit", "end", "end", "fail", "stop"),
    *("cancel", "cut", "cut", "swallow", "break", "refuse", "pause", "pause"),
)
ACTIONS = st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(0, 7)), max_size=20)


class Play:
    """One order of events, and what has to come of any."""

    def __init__(self, server: ContractServer, work: Runner) -> None:
        self.server, self.hands = server, work.hands
        self.completed: set[UUID] = set()

    def running(self) -> list[Script]:
        return [script for script in self.hands.scripts.values() if script.job.end is None and not script.over.is_set()]

    async def act(self, action: str, number: int) -> None:
        server, running = self.server, self.running()
        if action == "submit":
            server.submit()
        elif action == "cut":
            server.cut()
        elif action == "swallow":
            server.swallowed_acks += 1
        elif action == "break":
            server.cut_before_ack += 1
        elif action == "refuse":
            server.handshakes.append((503, {}))
        elif action == "cancel":
            for job in [job for job in server.jobs.values() if job.status == "running"][:1]:
                job.become("canceled")
        elif action == "end" and running:
            self.completed.add(running[0].job.job)
            running[0].complete()
        elif action == "fail" and running:
            running[0].fail("exit code 1")
        elif action == "stop" and running:
            running[0].job.cancel("the runner is on its way out")
        await anyio.sleep(0.01 * number if action == "pause" else 0)

    async def settle(self) -> None:
        def end(script: Script) -> None:
            self.completed.add(script.job.job)
            script.complete()

        self.server.handshakes.clear()
        self.hands.on_start = end
        for script in self.running():
            end(script)
        jobs = self.server.jobs
        await self.hands.until(lambda: all(job.ends for job in jobs.values()) and not self.hands.jobs.holding())

    def check(self) -> None:
        assert len(self.hands.executed) == len(set(self.hands.executed)), "no job is executed twice"
        for job in self.server.jobs.values():
            # Failed for want of news, and completed by the news after all.
            assert job.ends in (["processed"], ["failed"], ["canceled"], ["failed", "processed"])
            script = self.hands.scripts.get(job.id)
            canceled = script is not None and script.job.canceled_because is not None
            if job.id in self.completed and not canceled and "canceled" not in job.ends:
                assert job.ends[-1] == "processed", "a result that there is arrives"


async def _play(folder: Path, actions: list[tuple[str, int]]) -> None:
    pace = {"public_ack_s": 0.1, "public_beat_s": 0.02, "public_poll_s": 1}
    async with contract_server(KEY, silence_s=0.4) as server, at_work(server, folder, jitter=0.01, **pace) as work:
        play = Play(server, work)
        for action, number in actions:
            await play.act(action, number)
        await play.settle()
        play.check()
    assert list(folder.glob("*.end")) == []


@settings(
    max_examples=200 if os.environ.get("METALMARK_SOAK") else 15, deadline=None, suppress_health_check=list(HealthCheck)
)
@given(actions=ACTIONS)
def test_every_job_has_its_one_right_end(actions: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        anyio.run(_play, Path(folder) / "results", actions)
