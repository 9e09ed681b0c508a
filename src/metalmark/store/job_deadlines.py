"""Deadlines of jobs: leases, limits of whole jobs, and how long one may wait. Times are the database's rows alone."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import BigInteger, func, or_, select, type_coerce, update
from sqlalchemy.ext.asyncio import AsyncConnection

from metalmark.model import EndReason, JobEvent, JobStatus, expiry_event
from metalmark.store.columns import Instant
from metalmark.store.job_conditions import ACTIVE_ROWS, PENDING, UNREAD
from metalmark.store.job_moves import Moved, move_job
from metalmark.store.jobs import JobRecord, job_of
from metalmark.store.tables import jobs

_BATCH = 100
_MICROSECOND = timedelta(microseconds=1)


async def next_job_deadline(connection: AsyncConnection) -> datetime | None:
    """Return when the next job has to be looked after, or None when none ever has."""
    found = [
        (await connection.execute(select(func.min(column)).where(condition))).scalar_one()
        for column, condition in (
            (jobs.c.lease_expires, ACTIVE_ROWS),
            (jobs.c.limit_expires, ACTIVE_ROWS),
            (jobs.c.pending_expires, PENDING),
        )
    ]
    return min((instant for instant in found if instant is not None), default=None)


async def due_jobs(connection: AsyncConnection, *, now: datetime) -> list[UUID]:
    """Return some of the jobs whose deadline has passed, the longest past first; none when there is none."""
    found: list[UUID] = []
    for column, condition in (
        (jobs.c.lease_expires, ACTIVE_ROWS),
        (jobs.c.limit_expires, ACTIVE_ROWS),
        (jobs.c.pending_expires, PENDING),
    ):
        query = select(jobs.c.id).where(condition, column <= now).order_by(column).limit(_BATCH)
        found += (await connection.execute(query)).scalars()
    return list(dict.fromkeys(found))


async def expire_job(connection: AsyncConnection, job: UUID, *, now: datetime) -> Moved | None:
    """Do to a job whatever its deadlines ask for at a time; None when they ask for nothing any more."""
    row = (await connection.execute(select(*jobs.c).where(jobs.c.id == job))).one_or_none()
    if row is None:
        return None
    event, reason = _due_event(job_of(row), now)
    if event is None:
        return None
    return await move_job(connection, job, event, now=now, reason=reason)


def _due_event(job: JobRecord, now: datetime) -> tuple[JobEvent | None, EndReason | None]:
    if job.status is JobStatus.PENDING:
        overdue = job.pending_expires is not None and job.pending_expires <= now
        return (JobEvent.PENDING_EXPIRE, EndReason.PENDING_TOO_LONG) if overdue else (None, None)
    if not job.status.is_active:
        return None, None
    if job.limit_expires is not None and job.limit_expires <= now:
        return JobEvent.LIMIT_EXPIRE, EndReason.JOB_TIMEOUT_EXCEEDED
    if job.lease_expires is not None and job.lease_expires <= now:
        return expiry_event(
            now=now,
            limit_expires=job.limit_expires,
            began=job.began_as_far_as_known,
            retries_left=job.retries_left,
        )
    return None, None


async def renew_leases(connection: AsyncConnection, *, now: datetime, lease_s: float) -> int:
    """Let leases that are not within their length from now begin anew; return how many.

    For a server that starts, whose runners could not reach it before, and for a clock that was set: a lease says how
    long its holder has been silent, and then neither can tell.
    """
    fresh = now + timedelta(seconds=lease_s)
    statement = (
        update(jobs)
        .where(ACTIVE_ROWS, or_(jobs.c.lease_expires <= now, jobs.c.lease_expires > fresh))
        .values(lease_expires=fresh)
    )
    return (await connection.execute(statement)).rowcount


async def extend_limits(connection: AsyncConnection, *, by: timedelta) -> int:
    """Move the limits of all claimed and running jobs on, as the clock was set forward by so much; return how many."""
    later = type_coerce(jobs.c.limit_expires, BigInteger) + by // _MICROSECOND
    statement = update(jobs).where(ACTIVE_ROWS).values(limit_expires=type_coerce(later, Instant))
    return (await connection.execute(statement)).rowcount


async def unread_jobs(connection: AsyncConnection, *, completed_by: datetime) -> list[JobRecord]:
    """Return some of the jobs whose results are stored and not read, though they were there at a time."""
    query = select(*jobs.c).where(UNREAD, jobs.c.completed <= completed_by).order_by(jobs.c.id).limit(_BATCH)
    return [job_of(row) for row in await connection.execute(query)]
