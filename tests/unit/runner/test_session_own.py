from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import anyio.lowlevel
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.runner.modeled_server import FastClock, ModeledServer, leased

from metalmark.model import ChannelLost, MetalmarkError, Phase, ProtocolError
from metalmark.runner.end_file import SpooledEnd
from metalmark.runner.end_teller import UploadRejected
from metalmark.runner.session_own import OwnSession
from metalmark.testing.scripted_hands import (
    QUICK,
    NotedLink,
    NotedUpdates,
    Script,
    ScriptedHands,
    identity,
    scripted_hands,
)
from metalmark.wire import (
    Began,
    Broke,
    FromRunner,
    LiveOutput,
    NewVersion,
    PhaseTold,
    RefusalReason,
    RunnerHello,
    StillAlive,
    StopJob,
    Succeeded,
    Wanting,
    Welcome,
)

pytestmark = pytest.mark.anyio


@dataclass
class Runner:
    """A runner whose sessions follow each other without a pause."""

    hands: ScriptedHands
    server: ModeledServer
    pace: Any
    updates: NotedUpdates = field(default_factory=NotedUpdates)
    observer: NotedLink = field(default_factory=NotedLink)
    errors: list[MetalmarkError] = field(default_factory=list)
    upload: Callable[[SpooledEnd], Awaitable[None]] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    away: bool = False
    """Whether it makes no connection."""

    async def connect(self) -> None:
        while True:
            if self.away:
                await anyio.sleep(0.001)
                continue
            async with self.server.open() as pipe:
                session = OwnSession(
                    pipe,
                    identity=identity(process="p", facts=self.facts),
                    jobs=self.hands.jobs,
                    updates=self.updates,
                    observer=self.observer,
                    clock=FastClock(),
                    upload=self._upload,
                    pace=self.pace,
                )
                try:
                    await session.run()
                except MetalmarkError as error:
                    self.errors.append(error)

    async def _upload(self, end: SpooledEnd) -> None:
        if self.upload is not None:
            await self.upload(end)
        self.server.uploads.add(end.checksum)

    def said(self, kind: type[FromRunner]) -> list[Any]:
        return [message for message in self.server.heard if isinstance(message, kind)]


@asynccontextmanager
async def at_work(
    folder: Path, *, slots: int = 1, server: ModeledServer | None = None, **pace: Any
) -> AsyncIterator[Runner]:
    async with scripted_hands(folder, slots=slots) as hands:
        runner = Runner(hands, server or ModeledServer(), replace(QUICK, **pace))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runner.connect)
            yield runner
            tasks.cancel_scope.cancel()


async def test_hello_says_who_and_ready_says_how_many(tmp_path: Path) -> None:
    async with at_work(tmp_path, slots=2) as work:
        await work.hands.until(lambda: work.said(Wanting))
        hello = work.said(RunnerHello)[0]
        assert (hello.process, hello.boot, hello.holding, hello.checksum) == ("p", "boot", (), "c" * 64)
        assert [(said.slots, said.received) for said in work.said(Wanting)] == [(2, 0)]
        await work.hands.until(lambda: work.observer.events == ["metalmark.1", "confirmed"])
        assert work.updates.acknowledgements == 1


async def test_facts_that_are_too_long_keep_no_runner_out(tmp_path: Path) -> None:
    async with at_work(tmp_path) as work:
        work.facts |= {"cpu": "8 cores"}
        await work.hands.until(lambda: work.said(RunnerHello))
        work.facts |= {"log": "x" * 70_000}
        work.server.current.cut()  # type: ignore[union-attr]  # there is one
        await work.hands.until(lambda: len(work.said(RunnerHello)) == 2)
        assert [hello.facts for hello in work.said(RunnerHello)] == [{"cpu": "8 cores"}, None]


async def test_places_are_counted_not_repeated(tmp_path: Path) -> None:
    """A job that fills a place that was offered is no news; a place that becomes free is."""
    async with at_work(tmp_path, slots=2) as work:
        work.server.submit()
        (script,) = await work.hands.started()
        await work.hands.until(lambda: len(work.said(StillAlive)) > 1)
        assert [(said.slots, said.received) for said in work.said(Wanting)] == [(2, 0)]
        script.complete()
        await work.hands.until(lambda: len(work.said(Wanting)) == 2)
        assert (work.said(Wanting)[1].slots, work.said(Wanting)[1].received) == (2, 1)
        work.hands.jobs.stop_claiming()
        await work.hands.until(lambda: work.said(Wanting)[-1].slots == 0)


async def test_job_is_told_phase_by_phase(tmp_path: Path) -> None:
    async with at_work(tmp_path) as work:
        job = work.server.submit()
        (script,) = await work.hands.started()
        await work.hands.until(lambda: job.phases == ["pull"])
        assert not job.began
        script.begin()
        await work.hands.until(lambda: job.began)
        assert job.phases == ["pull", "exec"]
        script.say("a")
        await work.hands.until(lambda: job.printed == b"a")
        script.say("b")
        script.complete(stdout="ab")
        await work.hands.until(lambda: job.ends)
        assert (job.status, job.printed, job.results[0].stdout) == ("processed", b"ab", "ab")


async def test_phases_that_pass_at_once_are_not_told(tmp_path: Path) -> None:
    async with at_work(tmp_path, phase_s=1000) as work:
        job = work.server.submit()
        (script,) = await work.hands.started()
        for phase in (Phase.ROOTFS, Phase.SPAWN, Phase.KERNEL, Phase.AGENT):
            script.job.enter(phase, 1)
        script.begin()
        await work.hands.until(lambda: job.began)
        script.job.enter(Phase.COLLECT, 1)
        script.job.enter(Phase.EXEC, 2)
        await work.hands.until(lambda: len(job.phases) > 1)
        script.job.enter(Phase.COLLECT, 2)
        script.complete()
        await work.hands.until(lambda: job.ends)
        assert [began.iteration for began in work.said(Began)] == [1]
        assert [(told.phase, told.iteration) for told in work.said(PhaseTold)] == [(Phase.EXEC, 2)]


async def test_phase_of_a_job_that_began_before_is_told_as_it_is(tmp_path: Path) -> None:
    async with at_work(tmp_path) as work:
        job = work.server.submit()
        (script,) = await work.hands.started()
        script.begin()
        script.job.enter(Phase.COLLECT, 1)
        await work.hands.until(lambda: job.phases == ["collect"])
        assert [began.iteration for began in work.said(Began)] == [0], "it is not executed any more"


async def test_phase_is_told_after_what_was_printed_before_it(tmp_path: Path) -> None:
    async with at_work(tmp_path, answer_s=1000) as work:
        job = work.server.submit()
        (script,) = await work.hands.started()
        await work.hands.until(lambda: job.phases)
        script.begin()
        await work.hands.until(lambda: "exec" in job.phases)
        work.server.silent = True
        script.say("one ")
        await work.hands.until(lambda: work.said(LiveOutput))
        # The first piece has no answer yet, so that the second has to wait.
        script.say("two")
        script.job.enter(Phase.COLLECT, 1)
        script.job.enter(Phase.SPAWN, 2)
        await anyio.wait_all_tasks_blocked()
        assert [told.phase for told in work.said(PhaseTold)] == [Phase.PULL]
        work.server.silent = False
        assert work.server.current is not None
        work.server.current.cut()
        await work.hands.until(lambda: job.phases[-1] == "spawn")
        told = [message for message in work.server.heard if isinstance(message, LiveOutput | PhaseTold)]
        assert isinstance(told[-1], PhaseTold)
        assert (told[-1].phase, told[-1].iteration) == (Phase.SPAWN, 2)
        assert job.printed == b"one two"


async def test_job_that_prints_all_the_time_is_still_in_a_phase(tmp_path: Path) -> None:
    async with at_work(tmp_path) as work:
        job = work.server.submit()
        (script,) = await work.hands.started()
        script.begin()
        for number in range(2, 40):
            script.say("x" * 100)
            script.job.enter(Phase.EXEC, number)
            await anyio.lowlevel.checkpoint()
        await work.hands.until(lambda: work.said(PhaseTold)[-1].iteration == 39)
        numbers = [told.iteration for told in work.said(PhaseTold)]
        assert numbers == sorted(numbers)
        assert len(numbers) > 3
        assert not job.ends


async def test_duplicate_delivery_starts_nothing(tmp_path: Path) -> None:
    async with at_work(tmp_path, slots=2) as work:
        job = work.server.submit()
        await work.hands.started()
        work.server._sent += 1
        work.server.say(leased(job.id, job.lease))
        await work.hands.until(lambda: len(work.said(Wanting)) == 2)
        assert work.hands.executed == [job.id]
        assert work.said(Wanting)[1].received == 2


async def test_heartbeat_names_what_is_in_hand_and_drops_what_is_lost(tmp_path: Path) -> None:
    async with at_work(tmp_path) as work:
        job = work.server.submit()
        (script,) = await work.hands.started()
        await work.hands.until(lambda: work.said(StillAlive) and work.said(StillAlive)[-1].jobs)
        job.lease += 1
        await work.hands.until(lambda: script.job.is_lost)
        await work.hands.until(lambda: not work.hands.jobs.holding())
        assert work.said(Succeeded) == []


async def test_cancel_names_its_lease(tmp_path: Path) -> None:
    async with at_work(tmp_path) as work:
        job = work.server.submit()
        (script,) = await work.hands.started()
        work.server.say(StopJob(job=job.id, lease=job.lease + 1))
        work.server.say(StopJob(job=UUID(int=1), lease=1))
        await work.hands.until(lambda: len(work.said(StillAlive)) > 2)
        assert script.job.canceled_because is None
        work.server.cancel(job)
        await work.hands.until(lambda: not work.hands.jobs.holding())
        assert job.ends == ["canceled"]


async def test_offer_is_passed_on(tmp_path: Path) -> None:
    async with at_work(tmp_path) as work:
        await work.hands.until(lambda: work.said(Wanting))
        work.server.say(NewVersion(version="2", url="http://x.example.com/u", checksum="d" * 64))
        await work.hands.until(lambda: work.updates.offers)
        assert work.updates.offers == [("2", "http://x.example.com/u", "d" * 64)]
        assert work.errors == []


async def test_busy_server_is_told_again(tmp_path: Path) -> None:
    refused: list[str] = []

    def refuse(message: FromRunner) -> RefusalReason | None:
        # Everything but the first word once.
        if isinstance(message, RunnerHello) or refused.count(message.event) >= 2:
            return None
        refused.append(message.event)
        return RefusalReason.BUSY

    async with at_work(tmp_path, server=ModeledServer(refuse=refuse)) as work:
        job = work.server.submit()
        (script,) = await work.hands.started()
        script.begin()
        script.say("out")
        await work.hands.until(lambda: job.printed)
        script.complete()
        await work.hands.until(lambda: not work.hands.jobs.holding())
        assert (job.ends, job.printed, job.began) == (["processed"], b"out", True)
        assert (
            {"ready", "phase", "running", "output", "completed", "heartbeat"} >= set(refused) >= {"ready", "completed"}
        )
        assert work.server.connections == 1


@pytest.mark.parametrize("reason", [RefusalReason.STALE_LEASE, RefusalReason.OVER])
async def test_end_that_is_not_wanted_is_dropped(tmp_path: Path, reason: RefusalReason) -> None:
    server = ModeledServer(refuse=lambda message: reason if isinstance(message, Succeeded) else None)
    async with at_work(tmp_path, server=server) as work:
        server.submit()
        (script,) = await work.hands.started()
        script.complete()
        await work.hands.until(lambda: not work.hands.jobs.holding())
        assert list(tmp_path.glob("*.end")) == []
        assert len(work.said(Succeeded)) == 1


async def test_end_that_the_server_cannot_read_is_told_without_results(tmp_path: Path) -> None:
    server = ModeledServer(refuse=lambda message: RefusalReason.INVALID if isinstance(message, Succeeded) else None)
    async with at_work(tmp_path, server=server) as work:
        job = server.submit()
        (script,) = await work.hands.started()
        script.complete()
        await work.hands.until(lambda: not work.hands.jobs.holding())
        assert (job.ends, job.results) == (["failed"], ())
        assert job.error == "the server refused the results: as told"


async def test_output_that_is_too_much_is_sent_no_more(tmp_path: Path) -> None:
    server = ModeledServer(
        refuse=lambda message: RefusalReason.TOO_MUCH_OUTPUT if isinstance(message, LiveOutput) else None
    )
    async with at_work(tmp_path, server=server) as work:
        job = server.submit()
        (script,) = await work.hands.started()
        script.say("a")
        await work.hands.until(lambda: work.said(LiveOutput))
        await work.hands.until(lambda: script.job.output.read(0) is None)
        script.say("b")
        script.complete()
        await work.hands.until(lambda: job.ends)
        assert len(work.said(LiveOutput)) == 1


async def test_end_waits_for_live_output_but_not_for_ever(tmp_path: Path) -> None:
    server = ModeledServer(refuse=lambda message: RefusalReason.BUSY if isinstance(message, LiveOutput) else None)
    async with at_work(tmp_path, server=server, drain_s=0.3) as work:
        job = server.submit()
        (script,) = await work.hands.started()
        script.say("a")
        script.complete()
        await work.hands.until(lambda: job.ends)
        assert (job.ends, job.printed) == (["processed"], b"")


async def test_large_results_are_uploaded_first_and_again_when_they_are_gone(tmp_path: Path) -> None:
    tries = 0

    async def upload(end: SpooledEnd) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise ChannelLost("broke off")

    async with at_work(tmp_path) as work:
        work.upload = upload
        job = work.server.submit()
        (script,) = await work.hands.started()
        forgotten: list[int] = []

        def refuse(message: FromRunner) -> RefusalReason | None:
            if isinstance(message, Succeeded) and not forgotten:
                forgotten.append(message.id)
                work.server.uploads.clear()
            return None

        work.server.refuse = refuse
        script.complete(stdout="x" * 1_100_000)
        await work.hands.until(lambda: job.ends)
        end = work.said(Succeeded)[-1]
        assert (end.results, end.uploaded.size_bytes > 1_100_000) == (None, True)
        # Once in vain, once forgotten by the server, once for good.
        assert tries == 3
        assert job.ends == ["processed"]


async def test_next_job_waits_for_an_upload(tmp_path: Path) -> None:
    arrived = anyio.Event()

    async def upload(end: SpooledEnd) -> None:
        await arrived.wait()

    async with at_work(tmp_path, slots=2) as work:
        work.upload = upload
        work.server.submit()
        (script,) = await work.hands.started()
        script.complete(stdout="x" * 1_100_000)
        await work.hands.until(lambda: work.said(Wanting)[-1].slots == 0)
        second = work.server.submit()
        await anyio.sleep(0.05)
        assert second.status == "pending"
        arrived.set()
        await work.hands.started(2)


@pytest.mark.parametrize(("reason", "ends"), [("", []), ("too large for the server", ["failed"])])
async def test_upload_that_cannot_succeed(tmp_path: Path, reason: str, ends: list[str]) -> None:
    async def upload(end: SpooledEnd) -> None:
        raise UploadRejected(reason)

    async with at_work(tmp_path) as work:
        work.upload = upload
        job = work.server.submit()
        (script,) = await work.hands.started()
        script.complete(stdout="x" * 1_100_000)
        await work.hands.until(lambda: not work.hands.jobs.holding())
        assert job.ends == ends
        if ends:
            assert (job.error, [type(said) for said in work.server.heard if said.event == "failed"]) == (
                reason,
                [Broke],
            )


async def test_server_that_does_not_answer_is_left(tmp_path: Path) -> None:
    async with at_work(tmp_path, answer_s=0.1) as work:
        await work.hands.until(lambda: "confirmed" in work.observer.events)
        work.server.silent = True
        await work.hands.until(lambda: work.errors)
        assert "did not answer heartbeat in time" in str(work.errors[0])
        await work.hands.until(lambda: len(work.errors) > 1)
        assert "hello" in str(work.errors[1])
        work.server.silent = False
        await work.hands.until(lambda: work.observer.events.count("confirmed") == 2)


async def test_server_that_says_what_it_must_not_is_left(tmp_path: Path) -> None:
    async with at_work(tmp_path) as work:
        await work.hands.until(lambda: "confirmed" in work.observer.events)
        work.server.say(Welcome(re=1, version="1", heartbeat_timeout_s=1, frame_max_bytes=1, inline_output_max_bytes=1))
        await work.hands.until(lambda: work.errors)
        assert isinstance(work.errors[0], ProtocolError)


async def test_new_connection_names_what_is_in_hand_and_goes_on(tmp_path: Path) -> None:
    async with at_work(tmp_path) as work:
        job = work.server.submit()
        (script,) = await work.hands.started()
        script.say("one ")
        await work.hands.until(lambda: job.printed == b"one ")
        work.server.current.cut()  # type: ignore[union-attr]  # there is one
        await work.hands.until(lambda: len(work.said(RunnerHello)) == 2)
        assert [(lease.job, lease.lease) for lease in work.said(RunnerHello)[1].holding] == [(job.id, 1)]
        script.say("two")
        await work.hands.until(lambda: job.printed == b"one two")
        assert script.job.canceled_because is None


async def test_job_that_was_lost_on_its_way_comes_again(tmp_path: Path) -> None:
    async with at_work(tmp_path) as work:
        await work.hands.until(lambda: work.said(Wanting))
        job = work.server.submit()
        assert job.status == "claimed"
        work.server.current.cut()  # type: ignore[union-attr]  # there is one
        (script,) = await work.hands.started()
        assert script.job.lease == 2
        script.complete()
        await work.hands.until(lambda: job.ends == ["processed"])


async def test_answer_that_is_lost_changes_nothing(tmp_path: Path) -> None:
    async with at_work(tmp_path) as work:
        job = work.server.submit()
        (script,) = await work.hands.started()
        await work.hands.until(lambda: job.phases)
        work.server.lose_answers = 3
        script.begin()
        script.say("out")
        script.complete()
        await work.hands.until(lambda: not work.hands.jobs.holding())
        assert (job.ends, job.printed) == (["processed"], b"out")
        assert work.server.connections == 4


# The whole, against every order of events

EVENTS = (
    *("submit", "submit", "begin", "say", "end", "end", "fail", "break"),
    *("cancel", "expire", "cut", "cut", "lose", "away", "back", "pause", "pause"),
)
ACTIONS = st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(0, 7)), max_size=40)


class Play:
    """One order of events, and what has to come of any."""

    def __init__(self, work: Runner) -> None:
        self.server, self.hands, self.work = work.server, work.hands, work
        self.printed: dict[tuple[UUID, int], bytes] = {}
        self.taken: set[tuple[UUID, int]] = set()
        self.most_at_once = 0
        self.hands.on_start = self.started

    def started(self, script: Script) -> None:
        key = (script.job.job, script.job.lease)
        assert key not in self.taken, "a lease is executed once"
        self.taken.add(key)
        self.most_at_once = max(self.most_at_once, sum(job.end is None for job in self.hands.jobs.holding()))

    def running(self) -> list[Script]:
        scripts = self.hands.scripts.values()
        return [script for script in scripts if not script.over.is_set() and not script.job.is_lost]

    async def act(self, action: str, number: int) -> None:
        server = self.server
        scripts, jobs = self.running(), list(server.jobs.values())
        if action == "submit":
            server.submit()
        elif action == "cut" and server.current is not None:
            server.current.cut()
        elif action == "lose":
            server.lose_answers += 1
        elif action in ("away", "back"):
            self.work.away = action == "away"
        elif action == "pause":
            await anyio.sleep(0.002 * number)
        elif action in ("cancel", "expire") and jobs:
            getattr(server, action)(jobs[number % len(jobs)])
        elif scripts:
            self.execute(scripts[number % len(scripts)], action, number)
        await anyio.lowlevel.checkpoint()

    def execute(self, script: Script, action: str, number: int) -> None:
        key = (script.job.job, script.job.lease)
        if action == "begin":
            script.begin()
        elif action == "say":
            script.say(f"{number} ")
            self.printed[key] = self.printed.get(key, b"") + f"{number} ".encode()
        elif action == "end":
            script.complete(stdout=f"{key[1]}")
        elif action == "fail":
            script.fail("exit code 1")
        elif action == "break":
            script.fail("no KVM", infrastructure=True)

    def end(self, script: Script) -> None:
        script.complete(stdout=f"{script.job.lease}")

    async def settle(self) -> None:
        """From now on everything works, and what runs ends."""

        def started(script: Script) -> None:
            self.started(script)
            self.end(script)

        self.work.away, self.server.lose_answers = False, 0
        self.hands.on_start = started
        for script in self.running():
            self.end(script)
        await self.hands.until(lambda: all(job.ends for job in self.server.jobs.values()), within_s=10)
        await self.hands.until(lambda: self.hands.jobs.is_idle and not self.hands.jobs.holding(), within_s=10)

    def check(self) -> None:
        assert self.most_at_once <= 2
        for job in self.server.jobs.values():
            # One whose lease ran out while its benchmark ran may still be completed by its result, by nothing else.
            assert job.ends in (["processed"], ["failed"], ["canceled"], ["failed", "processed"])
            if job.ends[-1] == "processed":
                assert job.results[0].stdout == str(job.lease), "the result is that of the lease that counts"
            if job.ends == ["processed"]:
                assert job.printed == self.printed.get((job.id, job.lease), b"")


async def _play(folder: Path, actions: list[tuple[str, int]]) -> None:
    async with at_work(folder, slots=2) as work:
        play = Play(work)
        for action, number in actions:
            await play.act(action, number)
        await play.settle()
        play.check()
    assert list(folder.glob("*.end")) == []


@settings(
    max_examples=3000 if os.environ.get("METALMARK_SOAK") else 40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(actions=ACTIONS)
def test_every_job_has_its_one_right_end(actions: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        anyio.run(_play, Path(folder) / "results", actions)
