"""Why a job is still pending and where in the queue it is, as answers and streams tell."""

from __future__ import annotations

from datetime import datetime

from metalmark.model import JobStatus
from metalmark.server.config import JobsSection
from metalmark.server.job_rules import claim_rules
from metalmark.store import Connection, JobRecord, find_pending_reason, find_queue_position, find_spec
from metalmark.wire import PendingReasonBody


async def find_pending(
    connection: Connection, job: JobRecord, config: JobsSection, *, now: datetime
) -> PendingReasonBody | None:
    """Return why a job is pending, and its place among those that wait for the same spec; None when it is not."""
    if job.status is not JobStatus.PENDING:
        return None
    spec = await find_spec(connection, job.spec)
    assert spec is not None, "the foreign key restricts deletion"
    rules = claim_rules(config)
    reason = await find_pending_reason(connection, job, spec, rules, now=now)
    position = await find_queue_position(connection, job, rules, now=now)
    return PendingReasonBody(cause=reason.cause.value, text=reason.text, position=position)
