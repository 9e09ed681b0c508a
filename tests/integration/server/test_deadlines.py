"""The one timer, on both engines, with a clock that the test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from uuid import UUID

import anyio
import anyio.lowlevel
import pytest
from tests.integration.store.job_floor import Floor

from metalmark.model import JobEvent, JobLimits, JobStatus
from metalmark.server import deadlines as module
from metalmark.server.deadlines import Deadlines
from metalmark.store import (
    Claimant,
    ClaimedJob,
    ClaimRules,
    Connection,
    JobRecord,
    LeaseHolder,
    Moved,
    Store,
    StoredOutput,
    claim_job,
    expire_job,
    find_job,
    move_job,
)
from metalmark.testing.fake_clock import FakeClock

pytestmark = pytest.mark.anyio
LIMITS = JobLimits(heartbeat_timeout_s=90, grace_s=60, start_allowance_s=600)
OUTPUT = StoredOutput(key="k", size_bytes=1, digest="sha256:" + "0" * 64)


class Timed(Floor):
    """A floor with a clock to move."""

    clock: FakeClock
    spec_id: UUID
    runner_id: UUID

    async def ready(self, clock: FakeClock) -> Timed:
        self.clock = clock
        await self.lay()
        self.spec_id = await self.spec()
        self.runner_id = await self.runner(self.spec_id)
        return self

    async def claimed(self, **values: object) -> ClaimedJob:
        now = self.clock.now()
        await self.job(self.spec_id, now=now, pending_expires=now + timedelta(days=7), **values)
        claimant = Claimant(runner=self.runner_id, specs=frozenset({self.spec_id}))
        found = await self.store.write(lambda c: claim_job(c, claimant, ClaimRules(limits=LIMITS), now=now))
        assert isinstance(found, ClaimedJob)
        return found

    async def beat(self, claimed: ClaimedJob, event: JobEvent = JobEvent.HEARTBEAT) -> None:
        now = self.clock.now()
        holder = LeaseHolder(runner=claimed.runner, lease=claimed.lease)
        expires = now + timedelta(seconds=LIMITS.heartbeat_timeout_s)
        await self.store.write(lambda c: move_job(c, claimed.job, event, now=now, holder=holder, lease_expires=expires))

    async def status(self, claimed: ClaimedJob) -> JobStatus:
        async with self.store.read() as connection:
            found = await find_job(connection, claimed.job)
        assert found is not None
        return found.status

    async def becomes(self, claimed: ClaimedJob, status: JobStatus) -> None:
        """Let time go on until the job is in a state; the database takes real time, in which the clock stands."""
        with anyio.fail_after(20):
            while await self.status(claimed) is not status:
                self.clock.advance(1)
                await anyio.sleep(0.02)


@pytest.fixture
async def floor(store: Store) -> Timed:
    clock = FakeClock()
    return await Timed(store=store, now=clock.now()).ready(clock)


@asynccontextmanager
async def timer(
    floor: Timed, read_results: Callable[[JobRecord], Awaitable[object]] | None = None
) -> AsyncIterator[Deadlines]:
    deadlines = Deadlines(floor.store, floor.clock, LIMITS, read_results=read_results)
    async with anyio.create_task_group() as tasks:
        await tasks.start(deadlines.run)
        yield deadlines
        tasks.cancel_scope.cancel()


async def pass_time(floor: Timed, seconds: float, *, each: float = 1.0) -> None:
    """Let time go on in small parts, as a long one would look like a process that was stopped."""
    for _ in range(round(seconds / each)):
        floor.clock.advance(each)
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
    # What it began goes through the database, which takes real time.
    await anyio.sleep(0.15)


async def test_a_silent_runner_loses_its_job_and_one_that_beats_does_not(floor: Timed) -> None:
    async with timer(floor) as deadlines:
        silent, alive = await floor.claimed(), await floor.claimed()
        await floor.beat(alive, JobEvent.START)
        deadlines.expect_lease()
        await pass_time(floor, 60)
        await floor.beat(alive)
        await pass_time(floor, 29)
        assert await floor.status(silent) is JobStatus.CLAIMED
        await pass_time(floor, 6)
        await floor.becomes(silent, JobStatus.FAILED)
        assert await floor.status(alive) is JobStatus.RUNNING


async def test_silence_while_no_server_ran_is_not_the_runners(floor: Timed) -> None:
    claimed = await floor.claimed()
    floor.clock.advance(300)
    async with timer(floor):
        await pass_time(floor, 85)
        assert await floor.status(claimed) is JobStatus.CLAIMED
        await pass_time(floor, 10)
        await floor.becomes(claimed, JobStatus.FAILED)


@pytest.mark.parametrize("step_s", [5000, -5000])
async def test_a_clock_that_is_set_ends_no_job(floor: Timed, step_s: int) -> None:
    async with timer(floor):
        claimed = await floor.claimed()
        floor.clock.step(step_s)
        await pass_time(floor, 70)
        assert await floor.status(claimed) is JobStatus.CLAIMED
        # And a runner that is silent from then on loses its job in time, wherever the clock is.
        await pass_time(floor, 110)
        await floor.becomes(claimed, JobStatus.FAILED)


@pytest.mark.parametrize(("before_s", "stopped_s"), [(2, 200), (61, 30)], ids=["far beyond", "just beyond"])
async def test_a_process_that_was_stopped_hears_its_runners_first(floor: Timed, before_s: int, stopped_s: int) -> None:
    async with timer(floor) as deadlines:
        claimed = await floor.claimed()
        deadlines.expect_lease()
        await pass_time(floor, before_s)
        floor.clock.advance(stopped_s)
        await anyio.sleep(0.1)
        assert await floor.status(claimed) is JobStatus.CLAIMED
        await floor.beat(claimed)
        await pass_time(floor, 10)
        assert await floor.status(claimed) is JobStatus.CLAIMED


async def test_a_process_that_was_stopped_over_its_work_hears_its_runners_first(
    floor: Timed, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = anyio.Event()
    stopped = anyio.Event()

    async def expire(connection: Connection, job: UUID, *, now: datetime) -> Moved | None:
        if job == due.job:
            began.set()
            await stopped.wait()
        return await expire_job(connection, job, now=now)

    due, alive = await floor.claimed(), await floor.claimed()
    monkeypatch.setattr(module, "expire_job", expire)
    async with timer(floor) as deadlines:
        deadlines.expect_lease()
        await pass_time(floor, 60)
        await floor.beat(alive)
        await pass_time(floor, 31)
        await began.wait()
        # `alive` is 59 s from its deadline when the process stops, and far beyond when it goes on.
        floor.clock.advance(200)
        stopped.set()
        await anyio.sleep(0.2)
        assert await floor.status(alive) is JobStatus.CLAIMED
        await floor.beat(alive)
        await pass_time(floor, 10)
        assert await floor.status(alive) is JobStatus.CLAIMED
        await floor.becomes(due, JobStatus.FAILED)


async def test_results_that_were_left_are_read(floor: Timed) -> None:
    claimed = await floor.claimed()
    holder = LeaseHolder(runner=claimed.runner, lease=claimed.lease)
    await floor.store.write(
        lambda c: move_job(c, claimed.job, JobEvent.COMPLETE, now=floor.now, holder=holder, output=OUTPUT)
    )

    async def read(job: JobRecord) -> None:
        await floor.store.write(lambda c: move_job(c, job.id, JobEvent.PROCESS, now=floor.clock.now()))

    async with timer(floor, read):
        await floor.becomes(claimed, JobStatus.PROCESSED)


async def test_a_job_that_cannot_be_moved_keeps_no_other_from_its_deadline(
    floor: Timed, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def expire(connection: Connection, job: UUID, *, now: datetime) -> Moved | None:
        if job == bad.job and broken:
            tried.append(job)
            raise ValueError("a row that nobody thought of")
        return await expire_job(connection, job, now=now)

    broken, tried = True, list[UUID]()
    monkeypatch.setattr(module, "expire_job", expire)
    async with timer(floor) as deadlines:
        first, bad, last = [await floor.claimed() for _ in range(3)]
        deadlines.expect_lease()
        await pass_time(floor, 92)
        await floor.becomes(first, JobStatus.FAILED)
        await floor.becomes(last, JobStatus.FAILED)
        assert await floor.status(bad) is JobStatus.CLAIMED
        assert len(tried) < 20
        broken = False
        await floor.becomes(bad, JobStatus.FAILED)


async def test_results_that_cannot_be_read_end_neither_the_timer_nor_the_reading_of_others(floor: Timed) -> None:
    async def read(job: JobRecord) -> None:
        seen.append(job.id)
        if job.id == jobs[0].job:
            raise RecursionError("a document that nobody thought of")

    seen, now = list[UUID](), floor.clock.now()
    jobs = sorted([await floor.claimed() for _ in range(2)], key=lambda job: job.job)
    for job in jobs:
        await floor.beat(job, JobEvent.START)
        holder = LeaseHolder(runner=job.runner, lease=job.lease)

        async def end(connection: Connection, job: ClaimedJob = job, holder: LeaseHolder = holder) -> None:
            await move_job(connection, job.job, JobEvent.COMPLETE, now=now, holder=holder, output=OUTPUT)

        await floor.store.write(end)
    async with timer(floor, read):
        with anyio.fail_after(20):
            while seen.count(jobs[1].job) < 2:
                await pass_time(floor, 20)
    assert seen.count(jobs[0].job) == 1
