"""Jobs: what is to be run, and how far it came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from metalmark.model import EndReason, JobStatus, new_id, status_of
from metalmark.store.job_conditions import ACTIVE_ROWS, PENDING
from metalmark.store.notices import Notice, NoticeKind, announce
from metalmark.store.page import Page, rows_of
from metalmark.store.tables import jobs

DEFAULT_PRIORITY = 100


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A job as it is submitted."""

    report: UUID
    project: UUID
    organization: UUID
    spec: UUID
    source: str
    """Address of the client that submitted it."""
    anonymous: bool
    own_image: bool
    """Whether the image is in this server's registry; public runners are given no others."""
    config: Mapping[str, Any]
    """What a runner is told to do: the wire's ``JobConfig``."""
    timeout_s: int
    iterations: int = 1
    priority: int = DEFAULT_PRIORITY
    retry_allowed: bool = False
    """Whether a fault of the infrastructure before the benchmark began puts the job back into the queue, once."""
    pending_expires: datetime
    """When the job has waited too long."""
    retry_of: UUID | None = None


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """A job as it is stored. Times are None until they come."""

    id: UUID
    report: UUID
    project: UUID
    organization: UUID
    spec: UUID
    source: str
    anonymous: bool
    own_image: bool
    status: JobStatus
    priority: int
    config: Mapping[str, Any]
    timeout_s: int
    iterations: int
    retry_allowed: bool
    retries: int
    """How often it went back into the queue."""
    retry_of: UUID | None
    pending_expires: datetime | None
    lease: int
    """Number of the last lease; 0 before the first."""
    runner: UUID | None
    """Who holds the lease, or held the last one."""
    lease_expires: datetime | None
    limit_expires: datetime | None
    last_heartbeat: datetime | None
    phase: str | None
    phase_iteration: int | None
    """Which iteration the phase is of, 0 before the first; None when the runner does not tell."""
    claimed: datetime | None
    started: datetime | None
    began: datetime | None
    """When the benchmark was first executed."""
    completed: datetime | None
    end_reason: EndReason | None
    error: str | None
    output_key: str | None
    """Where the final output is among the blobs."""
    output_bytes: int | None
    output_digest: str | None
    iteration_ends: Sequence[Mapping[str, Any]] | None
    """How each iteration ended, as the wire's ``IterationEnd``."""
    created: datetime
    modified: datetime

    @property
    def retries_left(self) -> int:
        """How often it may still go back into the queue."""
        return 1 - self.retries if self.retry_allowed and self.retries < 1 else 0

    @property
    def began_as_far_as_known(self) -> bool:
        """Whether the benchmark may have been executed. A runner that names no phases may have done so at once."""
        return self.began is not None or (self.status is JobStatus.RUNNING and self.phase is None)


def job_of(row: Row[Any]) -> JobRecord:
    """Return the record of a row that has all columns of the table."""
    fields = dict(row._mapping)  # noqa: SLF001 - the documented access by name, underscored only to spare column names
    for name in ("report", "project", "organization", "spec", "runner"):
        fields[name] = fields.pop(f"{name}_id")
    fields["status"] = status_of(fields["status"])
    fields["end_reason"] = None if fields["end_reason"] is None else EndReason(fields["end_reason"])
    return JobRecord(**fields)


async def insert_job(connection: AsyncConnection, new: NewJob, *, now: datetime) -> JobRecord:
    """Store a pending job, and tell the dispatchers."""
    values = {
        "id": new_id(),
        "report_id": new.report,
        "project_id": new.project,
        "organization_id": new.organization,
        "spec_id": new.spec,
        "source": new.source,
        "anonymous": new.anonymous,
        "own_image": new.own_image,
        "status": JobStatus.PENDING.code,
        "priority": new.priority,
        "config": dict(new.config),
        "timeout_s": new.timeout_s,
        "iterations": new.iterations,
        "retry_allowed": new.retry_allowed,
        "retry_of": new.retry_of,
        "pending_expires": new.pending_expires,
        "created": now,
        "modified": now,
    }
    row = (await connection.execute(insert(jobs).values(values).returning(*jobs.c))).one()
    announce(connection, Notice(kind=NoticeKind.JOB_PENDING, subject=new.spec))
    return job_of(row)


async def find_job(connection: AsyncConnection, job: UUID, *, project: UUID | None = None) -> JobRecord | None:
    """Return a job, or None when there is none, or none of that project."""
    query = select(*jobs.c).where(jobs.c.id == job)
    if project is not None:
        query = query.where(jobs.c.project_id == project)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else job_of(row)


async def list_jobs(
    connection: AsyncConnection,
    *,
    project: UUID,
    status: JobStatus | None = None,
    ascending: bool = False,
    page: Page,
) -> tuple[list[JobRecord], int]:
    """Return a page of a project's jobs by creation, and how many there are."""
    query = select(*jobs.c).where(jobs.c.project_id == project)
    if status is not None:
        query = query.where(jobs.c.status == status.code)
    order = (jobs.c.created, jobs.c.id) if ascending else (jobs.c.created.desc(), jobs.c.id.desc())
    rows, total = await rows_of(connection, query.order_by(*order), page)
    return [job_of(row) for row in rows], total


async def count_jobs(connection: AsyncConnection) -> dict[JobStatus, int]:
    """Return how many jobs wait and run. Those that ended are not counted: they only grow."""
    # Each in terms of one partial index; a grouping over all statuses would read every job that ever was.
    pending = select(func.count()).select_from(jobs).where(PENDING)
    active = select(jobs.c.status, func.count()).where(ACTIVE_ROWS).group_by(jobs.c.status)
    counts = dict.fromkeys((JobStatus.PENDING, JobStatus.CLAIMED, JobStatus.RUNNING), 0)
    counts[JobStatus.PENDING] = (await connection.execute(pending)).scalar_one()
    for code, count in await connection.execute(active):
        counts[status_of(code)] = count
    return counts


async def pending_specs(connection: AsyncConnection) -> list[UUID]:
    """Return the specs that pending jobs wait for."""
    rows = await connection.execute(select(jobs.c.spec_id).where(PENDING).distinct())
    return list(rows.scalars())
