from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from tests.unit.runner.assignments import assignment

from metalmark.model import Phase
from metalmark.runner import StopRequest, Urgency, daemon
from metalmark.runner.daemon import drained
from metalmark.runner.end_file import EndKind, EndOfJob, SpooledEnd
from metalmark.runner.job_in_hand import JobInHand
from metalmark.runner.jobs_in_hand import JobsInHand
from metalmark.runner.result_spool import ResultSpool

pytestmark = pytest.mark.anyio


class Runner:
    """A job that runs until its end is wished for, and a server that takes ends when a test wants that."""

    def __init__(self, folder: Path) -> None:
        self.spool = ResultSpool(folder)
        self.jobs = JobsInHand(self.spool)
        self.stop = StopRequest()
        self.finish = anyio.Event()
        self.reachable = True

    async def execute(self, job: JobInHand) -> SpooledEnd:
        self.spool.begin(job.job, job.lease)
        job.enter(Phase.EXEC, 1)
        with anyio.CancelScope() as scope, job.stop.cancelling(scope, at=Urgency.POLITE):
            await self.finish.wait()
        kind = EndKind.CANCELED if scope.cancelled_caught else EndKind.COMPLETED
        return self.spool.keep(job.job, job.lease, EndOfJob(kind=kind), lambda sink: sink.write(b"{}"))

    async def serve(self) -> None:
        seen = -1
        while True:
            for job in self.jobs.holding():
                if job.end is not None and self.reachable:
                    await self.jobs.acknowledged(job.job, job.lease)
            seen = await self.jobs.changed(seen)


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[Runner, JobInHand]]:
    runner = Runner(folder)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runner.jobs.serve, runner.execute)
        tasks.start_soon(runner.serve)
        runner.jobs.take(assignment())
        (job,) = runner.jobs.holding()
        while not job.began:
            await runner.jobs.changed(runner.jobs.version)
        runner.stop.request()
        yield runner, job
        tasks.cancel_scope.cancel()


async def test_drain_sees_the_job_through(tmp_path: Path) -> None:
    async with running(tmp_path) as (runner, job), anyio.create_task_group() as tasks:
        over = anyio.Event()

        async def drain() -> None:
            await drained(runner.jobs, runner.stop, timeout_s=None)
            over.set()

        tasks.start_soon(drain)
        await anyio.wait_all_tasks_blocked()
        assert not over.is_set()
        assert runner.jobs.free_slots == 0
        runner.finish.set()
        with anyio.fail_after(10):
            await over.wait()
        assert job.end is not None
        assert job.end.kind is EndKind.COMPLETED
        assert runner.jobs.holding() == ()


@pytest.mark.parametrize("by", ["timeout", "second signal"])
async def test_drain_that_takes_too_long_cancels(tmp_path: Path, by: str) -> None:
    async with running(tmp_path) as (runner, job), anyio.create_task_group() as tasks:
        if by == "second signal":
            tasks.start_soon(lambda: drained(runner.jobs, runner.stop, timeout_s=None))
            await anyio.wait_all_tasks_blocked()
            runner.stop.request()
        else:
            with anyio.fail_after(10):
                await drained(runner.jobs, runner.stop, timeout_s=0.01)
        with anyio.fail_after(10):
            await runner.jobs.empty()
        assert job.is_abandoned
        assert job.end is not None
        assert job.end.kind is EndKind.CANCELED


async def test_results_that_nobody_takes_are_left_for_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "_SEND_S", 0.05)
    async with running(tmp_path) as (runner, job):
        runner.reachable = False
        runner.finish.set()
        with anyio.fail_after(10):
            await drained(runner.jobs, runner.stop, timeout_s=None)
        assert runner.jobs.holding() == (job,)
    assert [end.job for end in ResultSpool(tmp_path).read_back()] == [job.job]


async def test_nothing_in_hand_is_drained_at_once(tmp_path: Path) -> None:
    stop = StopRequest()
    stop.request()
    with anyio.fail_after(5):
        await drained(JobsInHand(ResultSpool(tmp_path)), stop, timeout_s=None)
