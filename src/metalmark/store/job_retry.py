"""Retries that users ask for: a new job with a report of its own, that points at the old one."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import insert, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from metalmark.model import new_id
from metalmark.store.columns import Identifier, Instant
from metalmark.store.jobs import JobRecord, NewJob, insert_job
from metalmark.store.tables import reports

_COPIED = ("project_id", "user_id", "head_id", "version_id", "testbed_id", "spec_id", "adapter", "settings")


async def retry_job(
    connection: AsyncConnection, old: JobRecord, *, priority: int, now: datetime, expires: datetime
) -> JobRecord:
    """Store a pending job that asks for the same as an old one.

    Args:
        connection: Of a write.
        old: The job that has ended.
        priority: That of the new one.
        now: The time of day.
        expires: When the new one has waited too long.
    """
    report = new_id()
    # The old report stays as it is: each shows one run.
    copy = select(
        literal(report, Identifier),
        *(reports.c[name] for name in _COPIED),
        *(literal(now, Instant) for _ in range(3)),
    ).where(reports.c.id == old.report)
    await connection.execute(insert(reports).from_select(["id", *_COPIED, "start_time", "end_time", "created"], copy))
    new = NewJob(
        report=report,
        project=old.project,
        organization=old.organization,
        spec=old.spec,
        source=old.source,
        anonymous=old.anonymous,
        own_image=old.own_image,
        config=old.config,
        timeout_s=old.timeout_s,
        iterations=old.iterations,
        priority=priority,
        retry_allowed=old.retry_allowed,
        pending_expires=expires,
        retry_of=old.id,
    )
    return await insert_job(connection, new, now=now)
