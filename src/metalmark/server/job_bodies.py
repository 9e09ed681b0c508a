"""Jobs as answers show them."""

from __future__ import annotations

from collections.abc import Sequence

from metalmark.model import NotFound, TooLarge
from metalmark.server.fleet_bodies import spec_body
from metalmark.store import Blobs, JobEventRecord, JobRecord, SpecRecord
from metalmark.wire import IterationEnd, JobBody, JobEventBody, JobOutput, PendingReasonBody


def job_body(
    job: JobRecord,
    spec: SpecRecord,
    *,
    pending: PendingReasonBody | None = None,
    events: Sequence[JobEventRecord] | None = None,
    output: JobOutput | None = None,
    in_list: bool = False,
) -> JobBody:
    """Return a job as REST answers have it."""
    ends = None if in_list or not job.status.has_run else job.iteration_ends
    return JobBody(
        uuid=job.id,
        status=job.status.value,
        spec=spec_body(spec),
        runner=job.runner,
        claimed=job.claimed,
        started=job.started,
        completed=job.completed,
        created=job.created,
        modified=job.modified,
        report=job.report,
        priority=job.priority,
        phase=job.phase if job.status.is_active else None,
        phase_iteration=job.phase_iteration if job.status.is_active else None,
        lease=job.lease,
        retries=job.retries,
        retry_of=job.retry_of,
        end_reason=None if job.end_reason is None or not job.status.has_run else job.end_reason.value,
        error=job.error,
        pending=pending,
        iterations=None if ends is None else tuple(IterationEnd.model_validate(end) for end in ends),
        events=None if events is None else tuple(_event_body(event) for event in events),
        output=output,
    )


def _event_body(event: JobEventRecord) -> JobEventBody:
    return JobEventBody(
        at=event.at,
        event=event.event.value,
        before=None if event.before is None else event.before.value,
        after=event.after.value,
        lease=event.lease,
        runner=event.runner,
        reason=event.reason,
    )


async def read_output(blobs: Blobs, job: JobRecord, *, limit_bytes: int) -> JobOutput | None:
    """Return the stored output of a job that has run; None when there is none, or more than an answer can hold."""
    if job.output_key is None or not job.status.has_run:
        return None
    try:
        return JobOutput.model_validate_json(await blobs.get(job.output_key, limit_bytes=limit_bytes))
    except (NotFound, TooLarge, ValueError):
        return None
