"""Moves of jobs and their deadlines on both engines."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import anyio
import pytest
from tests.integration.store.job_floor import Floor

from metalmark.model import Effect, EndReason, JobEvent, JobStatus, new_id
from metalmark.store import (
    Claimant,
    ClaimedJob,
    ClaimRules,
    JobRecord,
    LeaseHolder,
    Moved,
    NoticeKind,
    Store,
    StoredOutput,
    claim_job,
    due_jobs,
    expire_job,
    extend_limits,
    find_job,
    list_events,
    move_job,
    next_job_deadline,
    record_phase,
    renew_leases,
    retry_job,
    return_claim,
    unread_jobs,
)

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 31, 9, 15, tzinfo=UTC)
OUTPUT = StoredOutput(key="k", size_bytes=1, digest="sha256:" + "0" * 64)


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


class Bench(Floor):
    """A floor with one spec and runner, and short ways to move jobs."""

    spec_id: UUID
    runner_id: UUID

    async def ready(self) -> Bench:
        await self.lay()
        self.spec_id = await self.spec()
        self.runner_id = await self.runner(self.spec_id)
        return self

    async def claimed(self, **values: object) -> ClaimedJob:
        await self.job(self.spec_id, **values)
        return await self.claim()

    async def claim(self, at: datetime = NOW) -> ClaimedJob:
        claimant = Claimant(runner=self.runner_id, specs=frozenset({self.spec_id}))
        found = await self.store.write(lambda c: claim_job(c, claimant, ClaimRules(), now=at))
        assert isinstance(found, ClaimedJob)
        return found

    async def move(self, job: UUID, event: JobEvent, *, at: datetime = NOW, **values: object) -> Moved:
        moved = await self.store.write(lambda c: move_job(c, job, event, now=at, **values))  # type: ignore[arg-type]
        assert moved is not None
        return moved

    async def find(self, job: UUID) -> JobRecord:
        async with self.store.read() as connection:
            found = await find_job(connection, job)
        assert found is not None
        return found


@pytest.fixture
async def bench(store: Store) -> Bench:
    return await Bench(store=store, now=NOW).ready()


def holder_of(claimed: ClaimedJob) -> LeaseHolder:
    return LeaseHolder(runner=claimed.runner, lease=claimed.lease)


async def test_a_job_from_its_claim_to_its_report(bench: Bench) -> None:
    claimed = await bench.claimed()
    holder = holder_of(claimed)
    await bench.move(claimed.job, JobEvent.START, at=later(1), holder=holder, lease_expires=later(91))
    await bench.move(claimed.job, JobEvent.HEARTBEAT, at=later(2), holder=holder, lease_expires=later(92))
    running = await bench.find(claimed.job)
    assert (running.status, running.started) == (JobStatus.RUNNING, later(1))
    assert (running.last_heartbeat, running.lease_expires) == (later(2), later(92))
    await bench.move(claimed.job, JobEvent.COMPLETE, at=later(3), holder=holder, output=OUTPUT)
    moved = await bench.move(claimed.job, JobEvent.PROCESS, at=later(4))
    assert moved.job == await bench.find(claimed.job)
    assert (moved.job.status, moved.job.completed, moved.job.output_key) == (JobStatus.PROCESSED, later(3), "k")
    assert (moved.job.lease_expires, moved.job.limit_expires) == (None, None)
    assert moved.job.end_reason is EndReason.COMPLETED
    async with bench.store.read() as connection:
        events = [(event.event, event.after) for event in await list_events(connection, claimed.job)]
    assert events == [
        (JobEvent.CLAIM, JobStatus.CLAIMED),
        (JobEvent.START, JobStatus.RUNNING),
        (JobEvent.COMPLETE, JobStatus.COMPLETED),
        (JobEvent.PROCESS, JobStatus.PROCESSED),
    ]


async def test_nobody_but_the_holder_moves_a_job(bench: Bench) -> None:
    claimed = await bench.claimed()
    for holder in (
        LeaseHolder(runner=new_id(), lease=claimed.lease),
        LeaseHolder(runner=claimed.runner, lease=claimed.lease + 1),
    ):
        moved = await bench.move(claimed.job, JobEvent.FAIL, holder=holder)
        assert (moved.foreign, moved.job.status) == (True, JobStatus.CLAIMED)
    assert not await bench.store.write(
        lambda c: record_phase(c, claimed.job, holder=LeaseHolder(runner=new_id()), phase="exec", began=True, now=NOW)
    )
    assert (await bench.find(claimed.job)).began is None


async def test_a_requeued_job_has_another_lease_and_forgets_the_old_holder(bench: Bench) -> None:
    first = await bench.claimed(retry_allowed=True)
    await bench.move(first.job, JobEvent.START, holder=holder_of(first))
    moved = await bench.move(first.job, JobEvent.REQUEUE, at=later(5), holder=holder_of(first), unless_began=True)
    # A public runner names no phase, so its benchmark may have begun when it says it runs.
    assert (moved.effect, moved.job.status) == (Effect.KEEP, JobStatus.RUNNING)
    await bench.store.write(
        lambda c: record_phase(c, first.job, holder=holder_of(first), phase="pull", began=False, now=NOW)
    )
    moved = await bench.move(first.job, JobEvent.REQUEUE, at=later(5), holder=holder_of(first), unless_began=True)
    assert (moved.job.status, moved.job.retries, moved.job.runner) == (JobStatus.PENDING, 1, None)
    assert (moved.job.started, moved.job.phase, moved.job.claimed) == (None, None, None)
    second = await bench.claim(later(6))
    assert (second.job, second.lease) == (first.job, 2)
    late = await bench.move(first.job, JobEvent.COMPLETE, holder=holder_of(first), output=OUTPUT)
    assert (late.foreign, late.job.status) == (True, JobStatus.CLAIMED)
    again = await bench.move(first.job, JobEvent.REQUEUE, holder=holder_of(second), unless_began=True)
    assert again.job.status is JobStatus.CLAIMED


async def test_a_result_turns_a_failure_and_no_cancellation(bench: Bench) -> None:
    claimed = await bench.claimed()
    await bench.move(claimed.job, JobEvent.LEASE_EXPIRE)
    moved = await bench.move(claimed.job, JobEvent.COMPLETE, at=later(9), holder=holder_of(claimed), output=OUTPUT)
    assert (moved.job.status, moved.job.end_reason, moved.job.error) == (
        JobStatus.COMPLETED,
        EndReason.COMPLETED,
        None,
    )
    other = await bench.claimed()
    await bench.move(other.job, JobEvent.CANCEL)
    moved = await bench.move(other.job, JobEvent.COMPLETE, holder=holder_of(other), output=OUTPUT)
    assert (moved.effect, moved.job.status, moved.job.output_key) == (Effect.KEEP, JobStatus.CANCELED, None)
    assert (await bench.move(other.job, JobEvent.HEARTBEAT, holder=holder_of(other))).effect is Effect.STOP


async def test_of_two_ends_at_once_one_counts(bench: Bench) -> None:
    for _ in range(5):
        claimed = await bench.claimed()
        found: list[Moved] = []

        async def end(event: JobEvent, job: UUID = claimed.job, found: list[Moved] = found) -> None:
            found.append(await bench.move(job, event))

        async with anyio.create_task_group() as tasks:
            for event in (JobEvent.CANCEL, JobEvent.LEASE_EXPIRE, JobEvent.LIMIT_EXPIRE):
                tasks.start_soon(end, event)
        effects = sorted(moved.effect for moved in found if moved.effect is Effect.MOVE)
        assert effects == [Effect.MOVE]


async def test_a_claim_that_was_not_handed_over_is_nobodys_retry(bench: Bench) -> None:
    claimed = await bench.claimed()
    with bench.store.notices.subscribe([NoticeKind.JOB_PENDING]) as notices:
        await bench.store.write(lambda c: return_claim(c, claimed.job, holder=holder_of(claimed), now=NOW))
        with anyio.fail_after(30):
            assert (await anext(aiter(notices))).subject == bench.spec_id
    found = await bench.find(claimed.job)
    assert (found.status, found.retries, found.runner, found.lease) == (JobStatus.PENDING, 0, None, 1)
    # Only as long as it was not: what it has become since is not undone.
    second = await bench.claim()
    await bench.store.write(lambda c: return_claim(c, claimed.job, holder=holder_of(claimed), now=NOW))
    assert (await bench.find(second.job)).status is JobStatus.CLAIMED


@pytest.mark.parametrize("event", [JobEvent.REQUEUE, JobEvent.LEASE_EXPIRE])
async def test_a_job_that_waits_again_is_announced_to_waiting_runners(bench: Bench, event: JobEvent) -> None:
    claimed = await bench.claimed(retry_allowed=True)
    with bench.store.notices.subscribe([NoticeKind.JOB_PENDING]) as notices:
        if event is JobEvent.REQUEUE:
            await bench.move(claimed.job, event, holder=holder_of(claimed))
        else:
            await bench.store.write(lambda c: expire_job(c, claimed.job, now=later(90)))
        assert (await bench.find(claimed.job)).status is JobStatus.PENDING
        with anyio.fail_after(30):
            assert (await anext(aiter(notices))).subject == bench.spec_id


async def test_deadlines_of_claimed_jobs(bench: Bench) -> None:
    silent = await bench.claimed()
    again = await bench.claimed(retry_allowed=True)
    slow = await bench.claimed()
    await bench.move(slow.job, JobEvent.HEARTBEAT, holder=holder_of(slow), lease_expires=later(9999))
    ended: list[tuple[UUID, int, JobStatus, EndReason | None]] = []
    for at_s in (89, 90, 719, 720):
        async with bench.store.read() as connection:
            due = await due_jobs(connection, now=later(at_s))
            following = await next_job_deadline(connection)
        assert following is not None
        assert (following <= later(at_s)) is bool(due)
        for job in due:
            moved = await bench.store.write(lambda c, job=job, at_s=at_s: expire_job(c, job, now=later(at_s)))
            assert moved is not None
            ended.append((job, at_s, moved.job.status, moved.job.end_reason))
            assert await bench.store.write(lambda c, job=job, at_s=at_s: expire_job(c, job, now=later(at_s))) is None
    assert sorted(ended) == sorted(
        [
            (silent.job, 90, JobStatus.FAILED, EndReason.HEARTBEAT_TIMEOUT),
            (again.job, 90, JobStatus.PENDING, EndReason.HEARTBEAT_TIMEOUT),
            (slow.job, 720, JobStatus.CANCELED, EndReason.JOB_TIMEOUT_EXCEEDED),
        ]
    )


async def test_a_pending_job_waits_only_so_long(bench: Bench) -> None:
    job = await bench.job(bench.spec_id, pending_expires=later(60))
    async with bench.store.read() as connection:
        assert await next_job_deadline(connection) == later(60)
        assert await due_jobs(connection, now=later(59)) == []
        assert await due_jobs(connection, now=later(60)) == [job.id]
    await bench.store.write(lambda c: expire_job(c, job.id, now=later(60)))
    found = await bench.find(job.id)
    assert (found.status, found.end_reason) == (JobStatus.CANCELED, EndReason.PENDING_TOO_LONG)


async def test_leases_begin_anew_when_the_clock_was_set(bench: Bench) -> None:
    passed, far = await bench.claimed(), await bench.claimed()
    await bench.move(far.job, JobEvent.HEARTBEAT, holder=holder_of(far), lease_expires=later(99999))
    assert await bench.store.write(lambda c: renew_leases(c, now=later(3600), lease_s=90)) == 2
    for claimed in (passed, far):
        assert (await bench.find(claimed.job)).lease_expires == later(3690)
    assert await bench.store.write(lambda c: renew_leases(c, now=later(3601), lease_s=90)) == 0
    await bench.store.write(lambda c: extend_limits(c, by=timedelta(seconds=3600)))
    assert (await bench.find(passed.job)).limit_expires == later(720 + 3600)


async def test_results_that_nobody_read_are_found(bench: Bench) -> None:
    claimed = await bench.claimed()
    await bench.move(claimed.job, JobEvent.COMPLETE, at=later(9), holder=holder_of(claimed), output=OUTPUT)
    async with bench.store.read() as connection:
        assert await unread_jobs(connection, completed_by=later(8)) == []
        (left,) = await unread_jobs(connection, completed_by=later(9))
    # Its start was never told; a report needs one all the same.
    assert (left.id, left.started) == (claimed.job, NOW)
    await bench.move(claimed.job, JobEvent.PROCESS_FAIL, at=later(99), reason=EndReason.OUTPUT_MISSING)
    found = await bench.find(claimed.job)
    assert (found.status, found.completed, found.end_reason) == (
        JobStatus.FAILED,
        later(9),
        EndReason.OUTPUT_MISSING,
    )


async def test_a_retry_is_a_job_with_a_report_of_its_own(bench: Bench) -> None:
    claimed = await bench.claimed(priority=200, iterations=3)
    await bench.move(claimed.job, JobEvent.FAIL, holder=holder_of(claimed), error="boom")
    old = await bench.find(claimed.job)
    new = await bench.store.write(lambda c: retry_job(c, old, priority=150, now=later(9), expires=later(99)))
    assert new.report != old.report
    assert (new.retry_of, new.priority, new.iterations, new.config) == (old.id, 150, 3, old.config)
    assert (new.status, new.lease, new.retries, new.error) == (JobStatus.PENDING, 0, 0, None)
    assert (await bench.claim(later(10))).job == new.id
