from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import anyio
import pytest
from tests.unit.runner.assignments import assignment

from metalmark.model import Phase
from metalmark.runner.end_file import EndKind, EndOfJob, SpooledEnd
from metalmark.runner.job_in_hand import JobInHand
from metalmark.runner.jobs_in_hand import JobsInHand
from metalmark.runner.result_spool import ResultSpool

pytestmark = pytest.mark.anyio


class Executor:
    """Executes jobs until it is told to end them."""

    def __init__(self, spool: ResultSpool) -> None:
        self.spool = spool
        self.started: list[JobInHand] = []
        self.end = anyio.Event()

    async def __call__(self, job: JobInHand) -> SpooledEnd:
        self.started.append(job)
        self.spool.begin(job.job, job.lease)
        job.enter(Phase.PULL, 0)
        stopped = anyio.Event()
        scope = anyio.CancelScope()
        from metalmark.runner import Urgency

        with scope, job.stop.cancelling(scope, at=Urgency.POLITE):
            await self.end.wait()
        stopped.set()
        kind = EndKind.CANCELED if job.canceled_because else EndKind.COMPLETED
        return self.spool.keep(job.job, job.lease, EndOfJob(kind=kind), lambda sink: sink.write(b"{}"))


@asynccontextmanager
async def serving(folder: Path, *, slots: int = 1) -> AsyncIterator[tuple[JobsInHand, Executor]]:
    spool = ResultSpool(folder)
    jobs, executor = JobsInHand(spool, slots=slots, left=spool.read_back()), Executor(spool)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(jobs.serve, executor)
        yield jobs, executor
        tasks.cancel_scope.cancel()


async def until(jobs: JobsInHand, true: Callable[[], object]) -> None:
    with anyio.fail_after(10):
        while not true():
            await jobs.changed(jobs.version)


async def test_job_is_executed_and_kept_until_it_is_acknowledged(tmp_path: Path) -> None:
    async with serving(tmp_path) as (jobs, executor):
        given = assignment()
        assert jobs.free_slots == 1
        jobs.take(given)
        assert jobs.free_slots == 0
        job = jobs.find(given.job, 1)
        assert job is not None
        await until(jobs, lambda: job.phase == (Phase.PULL, 0))
        assert not job.began
        job.enter(Phase.EXEC, 1)
        assert job.began
        executor.end.set()
        await until(jobs, lambda: job.end is not None)
        assert jobs.free_slots == 1
        assert jobs.holding() == (job,)
        await jobs.acknowledged(given.job, 1)
        assert jobs.holding() == ()
        assert list(tmp_path.iterdir()) == []


async def test_job_whose_boxes_are_gone_takes_up_no_slot(tmp_path: Path) -> None:
    async with serving(tmp_path) as (jobs, executor):
        given = assignment()
        jobs.take(given)
        await until(jobs, lambda: executor.started)
        seen = jobs.version
        executor.started[0].executed()
        assert await jobs.changed(seen) > seen
        assert (jobs.free_slots, jobs.is_idle) == (1, False)
        jobs.take(assignment())
        assert jobs.free_slots == 0
        await until(jobs, lambda: len(executor.started) == 2)
        jobs.lost(given.job, 1)
        assert jobs.free_slots == 0
        executor.end.set()
        await jobs.idle()
        assert (jobs.free_slots, len(jobs.holding())) == (1, 1)


async def test_job_that_is_given_twice_runs_once(tmp_path: Path) -> None:
    async with serving(tmp_path, slots=2) as (jobs, executor):
        given = assignment()
        jobs.take(given)
        jobs.take(given)
        await until(jobs, lambda: executor.started)
        jobs.take(given)
        await anyio.wait_all_tasks_blocked()
        assert len(executor.started) == 1
        assert jobs.free_slots == 1


async def test_running_job_cannot_be_acknowledged(tmp_path: Path) -> None:
    async with serving(tmp_path) as (jobs, _):
        given = assignment()
        jobs.take(given)
        await jobs.acknowledged(given.job, 1)
        assert len(jobs.holding()) == 1


async def test_lost_job_is_stopped_and_holds_its_slot_until_it_is_gone(tmp_path: Path) -> None:
    async with serving(tmp_path) as (jobs, executor):
        given = assignment()
        jobs.take(given)
        await until(jobs, lambda: executor.started and executor.started[0].phase)
        jobs.lost(given.job, 1)
        assert jobs.holding() == ()
        assert jobs.free_slots == 0
        assert executor.started[0].canceled_because == "its lease was lost"
        await until(jobs, lambda: jobs.free_slots == 1)
        assert list(tmp_path.iterdir()) == []


async def test_end_of_a_lost_lease_is_removed(tmp_path: Path) -> None:
    async with serving(tmp_path) as (jobs, executor):
        executor.end.set()
        given = assignment()
        jobs.take(given)
        await jobs.idle()
        jobs.lost(given.job, 1)
        with anyio.fail_after(10):
            await jobs.empty()
        assert list(tmp_path.iterdir()) == []


async def test_newer_lease_ends_the_older_one(tmp_path: Path) -> None:
    async with serving(tmp_path, slots=2) as (jobs, executor):
        job = uuid4()
        jobs.take(assignment(job, 1))
        await until(jobs, lambda: executor.started)
        jobs.take(assignment(job, 2))
        assert [held.lease for held in jobs.holding()] == [2]
        await until(jobs, lambda: len(executor.started) == 2)
        assert executor.started[0].is_lost
        assert not executor.started[1].is_lost


async def test_job_that_comes_back_before_its_end_was_acknowledged_finds_its_slot_free(tmp_path: Path) -> None:
    async with serving(tmp_path) as (jobs, executor):
        job = uuid4()
        executor.end.set()
        jobs.take(assignment(job, 1))
        await jobs.idle()
        jobs.take(assignment(job, 2))
        await until(jobs, lambda: len(executor.started) == 2)
        (held,) = jobs.holding()
        assert (held.lease, held.refused_because) == (2, None)


@pytest.mark.parametrize("draining", [True, False])
async def test_job_without_room_fails_for_want_of_infrastructure(tmp_path: Path, draining: bool) -> None:
    async with serving(tmp_path) as (jobs, executor):
        if draining:
            jobs.stop_claiming()
        else:
            jobs.take(assignment())
            await until(jobs, lambda: executor.started)
        jobs.take(assignment())
        job = jobs.holding()[-1]
        await until(jobs, lambda: job.end is not None)
        assert job.end is not None
        assert (job.end.kind, job.end.infrastructure) == (EndKind.FAILED, True)
        assert job.end.error is not None
        assert ("way out" in job.end.error) is draining
        assert len(executor.started) == (0 if draining else 1)


async def test_no_slots_while_draining(tmp_path: Path) -> None:
    async with serving(tmp_path, slots=3) as (jobs, _):
        seen = jobs.version
        jobs.stop_claiming()
        assert await jobs.changed(seen) > seen
        assert jobs.free_slots == 0
        jobs.resume_claiming()
        assert jobs.free_slots == 3


async def test_ends_of_an_earlier_process_are_in_hand(tmp_path: Path) -> None:
    given = assignment()
    async with serving(tmp_path) as (jobs, executor):
        jobs.take(given)
        await until(jobs, lambda: executor.started and executor.started[0].phase)
        executor.spool.begin(given.job, 1)
    async with serving(tmp_path) as (jobs, executor):
        (job,) = jobs.holding()
        assert (job.job, job.lease, job.assignment) == (given.job, 1, None)
        assert job.end is not None
        assert jobs.free_slots == 1
        jobs.take(given)
        assert executor.started == []
        await jobs.acknowledged(given.job, 1)
        assert list(tmp_path.iterdir()) == []


async def test_unacknowledged_ends_bound_what_is_taken(tmp_path: Path) -> None:
    async with serving(tmp_path, slots=64) as (jobs, executor):
        executor.end.set()
        for _ in range(63):
            jobs.take(assignment())
        await jobs.idle()
        assert jobs.free_slots == 1


async def test_leaving_is_for_good(tmp_path: Path) -> None:
    async with serving(tmp_path) as (jobs, _):
        jobs.stop_claiming()
        jobs.leave()
        # What an update does that could not be carried out.
        jobs.resume_claiming()
        assert jobs.free_slots == 0


async def test_output_counts_as_a_change(tmp_path: Path) -> None:
    async with serving(tmp_path) as (jobs, executor):
        jobs.take(assignment())
        await until(jobs, lambda: executor.started)
        seen = jobs.version
        executor.started[0].output.write(b"x", iteration=1, stream="stdout")
        assert jobs.version > seen
