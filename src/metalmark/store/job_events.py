"""What happened to each job, in order: kept for people who ask why, never read for a decision."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from metalmark.model import JobEvent, JobStatus, new_id, status_of
from metalmark.store.tables import job_events


@dataclass(frozen=True, kw_only=True)
class JobEventRecord:
    """One thing that happened to a job."""

    at: datetime
    event: JobEvent
    before: JobStatus | None
    after: JobStatus
    lease: int
    runner: UUID | None
    reason: str | None


async def add_event(
    connection: AsyncConnection,
    *,
    job: UUID,
    at: datetime,
    event: JobEvent,
    before: JobStatus,
    after: JobStatus,
    lease: int,
    runner: UUID | None,
    reason: str | None = None,
) -> None:
    """Write down what happened to a job, in the transaction in which it did."""
    values: dict[str, Any] = {
        "id": new_id(),
        "job_id": job,
        "at": at,
        "event": str(event),
        "status_before": before.code,
        "status_after": after.code,
        "lease": lease,
        "runner_id": runner,
        "reason": reason,
    }
    await connection.execute(insert(job_events).values(values))


async def list_events(connection: AsyncConnection, job: UUID) -> list[JobEventRecord]:
    """Return what happened to a job, first things first."""
    # Identifiers of several servers may disagree about what came first; the lease, which every claim raises, does not.
    query = select(job_events).where(job_events.c.job_id == job).order_by(job_events.c.lease, job_events.c.id)
    return [
        JobEventRecord(
            at=row.at,
            event=JobEvent(row.event),
            before=None if row.status_before is None else status_of(row.status_before),
            after=status_of(row.status_after),
            lease=row.lease,
            runner=row.runner_id,
            reason=row.reason,
        )
        for row in await connection.execute(query)
    ]
