"""Moves of jobs: every change of a job's state after its claim, as `metalmark.model.job_life` has it.

A move reads the job, asks the table, and updates the row on the condition that state and lease are still those that
were read. So nothing moves a job from a state it is not in, or by a lease that is not the last, whatever else happens
at the same time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from metalmark.model import Effect, EndReason, JobEvent, JobStatus, transition
from metalmark.store.job_events import add_event
from metalmark.store.jobs import JobRecord, job_of
from metalmark.store.notices import Notice, NoticeKind, announce
from metalmark.store.tables import jobs


@dataclass(frozen=True, kw_only=True)
class LeaseHolder:
    """Who says that it holds a job."""

    runner: UUID
    lease: int | None = None
    """The number of its lease; None for a public runner, which knows none."""


@dataclass(frozen=True, kw_only=True)
class StoredOutput:
    """Where the final output of a job is."""

    key: str
    size_bytes: int
    digest: str
    """``sha256:…`` of the content."""
    iteration_ends: Sequence[Mapping[str, Any]] = ()
    """How each iteration ended, as the wire's ``IterationEnd``."""


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What an event did."""

    effect: Effect
    before: JobStatus
    job: JobRecord
    """The job after it."""
    foreign: bool = False
    """Whether the sender does not hold the job: nothing was changed, and it should stop work on it."""


_REASONS = {
    JobEvent.COMPLETE: EndReason.COMPLETED,
    JobEvent.FAIL: EndReason.REPORTED_FAILURE,
    JobEvent.RUNNER_CANCEL: EndReason.CANCELED_BY_RUNNER,
    JobEvent.REQUEUE: EndReason.INFRASTRUCTURE,
    JobEvent.LEASE_EXPIRE: EndReason.HEARTBEAT_TIMEOUT,
    JobEvent.LIMIT_EXPIRE: EndReason.JOB_TIMEOUT_EXCEEDED,
    JobEvent.PENDING_EXPIRE: EndReason.PENDING_TOO_LONG,
    JobEvent.CANCEL: EndReason.CANCELED_BY_USER,
    JobEvent.PROCESS_FAIL: EndReason.PROCESSING_FAILED,
}


async def move_job(
    connection: AsyncConnection,
    job: UUID,
    event: JobEvent,
    *,
    now: datetime,
    holder: LeaseHolder | None = None,
    lease_expires: datetime | None = None,
    reason: EndReason | None = None,
    error: str | None = None,
    output: StoredOutput | None = None,
    unless_began: bool = False,
) -> Moved | None:
    """Let an event happen to a job.

    Args:
        connection: A connection that writes.
        job: Which job.
        event: What happened. Claims have a way of their own, `claim_job`.
        now: When.
        holder: Who says so, for events of a runner: without the job's last lease they change nothing.
        lease_expires: How long the lease now lasts, for signs of life.
        reason: Why the job ends, where the event does not say it all.
        error: What the runner, or the server, has to say about a failure.
        output: What the runner delivered, stored already.
        unless_began: Requeue only: treat a job whose benchmark may have begun, or that has no retry left, as one for
            which this is too late; its runner then reports failure.

    Returns:
        What became of it, or None when there is no such job.
    """
    while True:
        row = (await connection.execute(select(*jobs.c).where(jobs.c.id == job))).one_or_none()
        if row is None:
            return None
        before = job_of(row)
        if holder is not None and not _holds(holder, before):
            return Moved(effect=Effect.KEEP, before=before.status, job=before, foreign=True)
        step = transition(before.status, event)
        if event is JobEvent.REQUEUE and unless_began and (before.began_as_far_as_known or not before.retries_left):
            return Moved(effect=Effect.KEEP, before=before.status, job=before)
        if step.effect in (Effect.KEEP, Effect.STOP, Effect.REFUSE):
            return Moved(effect=step.effect, before=before.status, job=before)
        values = _changes(before, event, step.target, now=now, lease_expires=lease_expires)
        if step.effect is Effect.MOVE:
            values |= _outcome(event, before, reason=reason, error=error, output=output)
        statement = (
            update(jobs)
            .where(jobs.c.id == job, jobs.c.status == before.status.code, jobs.c.lease == before.lease)
            .values(values)
            .returning(*jobs.c)
        )
        changed = (await connection.execute(statement)).one_or_none()
        if changed is None:
            # Somebody else was first; what the event does now is another question.
            continue
        after = job_of(changed)
        if step.effect is Effect.MOVE:
            await _tell(connection, before, after, event, now)
        return Moved(effect=step.effect, before=before.status, job=after)


def _holds(holder: LeaseHolder, job: JobRecord) -> bool:
    return job.runner == holder.runner and (holder.lease is None or holder.lease == job.lease)


def _changes(
    before: JobRecord, event: JobEvent, target: JobStatus, *, now: datetime, lease_expires: datetime | None
) -> dict[str, Any]:
    """Return what a sign of life or a move changes beside the outcome."""
    values: dict[str, Any] = {"status": target.code}
    if event in (JobEvent.START, JobEvent.HEARTBEAT):
        values["last_heartbeat"] = now
        if lease_expires is not None:
            values["lease_expires"] = lease_expires
    if target is not before.status:
        values["modified"] = now
    if target is JobStatus.RUNNING and before.started is None:
        values["started"] = now
    if event is JobEvent.COMPLETE and before.started is None:
        values["started"] = before.claimed
    if target.has_run:
        values |= {"lease_expires": None, "limit_expires": None}
        # A report that could not be made does not change when the runner was done.
        if event is not JobEvent.PROCESS_FAIL:
            values["completed"] = before.completed if event is JobEvent.PROCESS else now
    if target is JobStatus.PENDING:
        values |= dict.fromkeys(
            (
                "runner_id",
                "lease_expires",
                "limit_expires",
                "last_heartbeat",
                "phase",
                "phase_iteration",
                "claimed",
                "started",
                "began",
            )
        )
    return values


def _outcome(
    event: JobEvent,
    before: JobRecord,
    *,
    reason: EndReason | None,
    error: str | None,
    output: StoredOutput | None,
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    why = reason or _REASONS.get(event)
    if why is not None:
        values["end_reason"] = str(why)
    if event not in (JobEvent.START, JobEvent.PROCESS):
        values["error"] = error
    if event is JobEvent.REQUEUE:
        values["retries"] = before.retries + 1
    if output is not None:
        values |= {"output_key": output.key, "output_bytes": output.size_bytes, "output_digest": output.digest}
        values["iteration_ends"] = list(output.iteration_ends) or None
    return values


async def _tell(
    connection: AsyncConnection, before: JobRecord, after: JobRecord, event: JobEvent, now: datetime
) -> None:
    await add_event(
        connection,
        job=after.id,
        at=now,
        event=event,
        before=before.status,
        after=after.status,
        lease=before.lease,
        runner=before.runner,
        reason=None if after.end_reason is None or not after.status.has_run else str(after.end_reason),
    )
    announce(connection, Notice(kind=NoticeKind.JOB_CHANGED, subject=after.id))
    if after.status is JobStatus.PENDING:
        announce(connection, Notice(kind=NoticeKind.JOB_PENDING, subject=after.spec))


async def return_claim(connection: AsyncConnection, job: UUID, *, holder: LeaseHolder, now: datetime) -> None:
    """Put a job back that was claimed and never handed over. That is nobody's retry."""
    statement = (
        update(jobs)
        .where(
            jobs.c.id == job,
            jobs.c.status == JobStatus.CLAIMED.code,
            jobs.c.runner_id == holder.runner,
            jobs.c.lease == holder.lease,
        )
        .values(
            status=JobStatus.PENDING.code,
            runner_id=None,
            lease_expires=None,
            limit_expires=None,
            last_heartbeat=None,
            claimed=None,
            modified=now,
        )
        .returning(jobs.c.spec_id)
    )
    spec = (await connection.execute(statement)).scalar_one_or_none()
    if spec is None:
        return
    await add_event(
        connection,
        job=job,
        at=now,
        event=JobEvent.REQUEUE,
        before=JobStatus.CLAIMED,
        after=JobStatus.PENDING,
        lease=holder.lease or 0,
        runner=holder.runner,
        reason="not handed over",
    )
    announce(connection, Notice(kind=NoticeKind.JOB_PENDING, subject=spec))
    announce(connection, Notice(kind=NoticeKind.JOB_CHANGED, subject=job))


async def record_phase(
    connection: AsyncConnection,
    job: UUID,
    *,
    holder: LeaseHolder,
    phase: str,
    iteration: int | None = None,
    began: bool,
    now: datetime,
) -> bool:
    """Note how far a runner is with a job it holds; return whether it holds it.

    Args:
        connection: A connection that writes.
        job: Which job.
        holder: Who says so.
        phase: Name of the phase.
        iteration: Which iteration it is of; None when the runner said no more than that the benchmark runs, which
            leaves a phase that it named.
        began: Whether the benchmark itself is executed in it.
        now: When.
    """
    row = (await connection.execute(select(*jobs.c).where(jobs.c.id == job))).one_or_none()
    if row is None or not _holds(holder, job_of(row)) or not job_of(row).status.is_active:
        return False
    values: dict[str, Any] = {}
    if iteration is not None or row.phase is None:
        values |= {"phase": phase, "phase_iteration": iteration}
    if began and row.began is None:
        values["began"] = now
    if not values:
        return True
    statement = (
        update(jobs)
        .where(jobs.c.id == job, jobs.c.status == row.status, jobs.c.lease == row.lease)
        .values(values)
        .returning(jobs.c.id)
    )
    changed = (await connection.execute(statement)).one_or_none() is not None
    if changed:
        announce(connection, Notice(kind=NoticeKind.JOB_CHANGED, subject=job))
    return changed
