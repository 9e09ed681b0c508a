"""Jobs of a project: list, view, cancel, retry."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from metalmark.model import Conflict, Effect, JobEvent, JobStatus, NotFound, Permission
from metalmark.server.actor import Anonymous, caller_of
from metalmark.server.audit import act_of
from metalmark.server.caller import CurrentActor
from metalmark.server.client_address import address_group
from metalmark.server.context import CurrentContext
from metalmark.server.job_bodies import job_body, read_output
from metalmark.server.job_pending import find_pending
from metalmark.server.job_rules import check_duration
from metalmark.server.paging import Direction, RequestedPage, SortDirection, set_total
from metalmark.server.permission import project_for, project_permissions
from metalmark.server.rate_limits import Limited
from metalmark.store import (
    DEFAULT_PRIORITY,
    Connection,
    JobRecord,
    SpecRecord,
    find_job,
    find_spec,
    list_events,
    list_jobs,
    move_job,
    record_act,
    retry_job,
)
from metalmark.wire import JobBody, ResourceIdField, UuidField

router = APIRouter(tags=["jobs"])


class JobOrder(StrEnum):
    """By what jobs are listed."""

    CREATED = "created"


@router.get("/v0/projects/{project}/jobs", operation_id="proj_jobs_get")
async def get_jobs(
    *,
    context: CurrentContext,
    actor: CurrentActor,
    project: ResourceIdField,
    response: Response,
    page: RequestedPage,
    status: Annotated[JobStatus | None, Query(description="Only those in this state.")] = None,
    sort: Annotated[JobOrder, Query(description="What to sort by.")] = JobOrder.CREATED,  # noqa: ARG001 - there is one
    direction: SortDirection = None,
) -> list[JobBody]:
    """List the jobs of a project, the newest first; without their output."""
    async with context.store.read() as connection:
        found = await project_for(connection, actor, project, Permission.VIEW)
        ascending = direction is Direction.ASCENDING
        jobs, total = await list_jobs(connection, project=found.id, status=status, ascending=ascending, page=page)
        specs = {spec: await _spec(connection, spec) for spec in {job.spec for job in jobs}}
    set_total(response, total)
    return [job_body(job, specs[job.spec], in_list=True) for job in jobs]


@router.get("/v0/projects/{project}/jobs/{job}", operation_id="proj_job_get")
async def get_job(context: CurrentContext, actor: CurrentActor, project: ResourceIdField, job: UuidField) -> JobBody:
    """View a job: what happened to it, why it is pending, or its output once it ran, for those who signed in."""
    async with context.store.read() as connection:
        found = await project_for(connection, actor, project, Permission.VIEW)
        record = await _job(connection, job, found.id)
        spec = await _spec(connection, record.spec)
        pending = await find_pending(connection, record, context.config.jobs, now=context.clock.now())
        events = await list_events(connection, record.id)
    output = None
    if not isinstance(actor, Anonymous):
        limit_bytes = context.config.server.message_max_bytes
        output = await read_output(context.blobs, record, limit_bytes=limit_bytes)
    return job_body(record, spec, pending=pending, events=events, output=output)


@router.post("/v0/projects/{project}/jobs/{job}/cancel", operation_id="proj_job_cancel_post", status_code=200)
async def post_cancel(
    context: CurrentContext, actor: CurrentActor, request: Request, project: ResourceIdField, job: UuidField
) -> JobBody:
    """Cancel a job. One that runs is stopped by its runner; one that is canceled already stays so.

    A job that has ended otherwise is a conflict.
    """
    now = context.clock.now()

    async def work(connection: Connection) -> tuple[JobBody, bool]:
        found = await project_for(connection, actor, project, Permission.EDIT)
        await _job(connection, job, found.id)
        moved = await move_job(connection, job, JobEvent.CANCEL, now=now)
        if moved is None:
            raise NotFound("job", job)
        if moved.effect is Effect.REFUSE:
            raise Conflict(f"the job is {moved.before} already", field="status", why="it cannot be canceled any more")
        if moved.effect is Effect.MOVE:
            await record_act(connection, act_of(request, actor, "job.cancel", "job", job), now=now)
        return job_body(moved.job, await _spec(connection, moved.job.spec)), moved.effect is Effect.MOVE

    body, canceled = await context.store.write(work)
    if canceled:
        context.metrics.job_moved(JobStatus.CANCELED)
    return body


@router.post("/v0/projects/{project}/jobs/{job}/retry", operation_id="proj_job_retry_post", status_code=201)
async def post_retry(
    context: CurrentContext, actor: CurrentActor, request: Request, project: ResourceIdField, job: UuidField
) -> JobBody:
    """Do a job that has ended once more, as a new job with a report of its own that points at the old one."""
    # It is as much work as a run that is submitted.
    context.limits.spend(Limited.RUNS, caller_of(actor, address_group(request.state.client_address)))
    now = context.clock.now()
    expires = now + timedelta(seconds=context.config.jobs.max_pending_s)

    async def work(connection: Connection) -> JobBody:
        found = await project_for(connection, actor, project, Permission.CREATE)
        old = await _job(connection, job, found.id)
        if not old.status.is_final:
            raise Conflict(f"the job is {old.status}", field="status", why="only one that has ended can be retried")
        check_duration(context.config.jobs, timeout_s=old.timeout_s, iterations=old.iterations)
        spec = await _spec(connection, old.spec)
        if spec.archived is not None:
            raise Conflict(f"the spec {spec.slug} is archived", field="spec", why="no runner would take the job")
        # A priority above the usual is given to those who manage the project, not to whoever repeats their jobs.
        manages = Permission.MANAGE in await project_permissions(connection, actor, found)
        priority = old.priority if manages else min(old.priority, DEFAULT_PRIORITY)
        new = await retry_job(connection, old, priority=priority, now=now, expires=expires)
        await record_act(connection, act_of(request, actor, "job.retry", "job", new.id, retry_of=str(old.id)), now=now)
        return job_body(new, spec)

    body = await context.store.write(work)
    context.metrics.job_moved(JobStatus.PENDING)
    return body


async def _job(connection: Connection, job: UUID, project: UUID) -> JobRecord:
    found = await find_job(connection, job, project=project)
    if found is None:
        raise NotFound("job", job)
    return found


async def _spec(connection: Connection, spec: UUID) -> SpecRecord:
    found = await find_spec(connection, spec)
    assert found is not None, "the foreign key restricts deletion"
    return found
