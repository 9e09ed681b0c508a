"""What pending jobs wait for: the runners of their specs, and room under the limits."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, literal, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from metalmark.model import PendingReason, RunnerStanding, pending_reason
from metalmark.store.claims import ClaimRules
from metalmark.store.job_conditions import ACTIVE_ROWS, PENDING
from metalmark.store.jobs import JobRecord
from metalmark.store.runners import capabilities_of
from metalmark.store.specs import SpecRecord
from metalmark.store.tables import jobs, runner_capabilities, runner_specs, runners

_RUNNERS_MOST = 1000
POSITION_MOST = 1000
"""How far back in a queue places are told: counting costs as much as there is to count."""


async def find_pending_reason(
    connection: AsyncConnection, job: JobRecord, spec: SpecRecord, rules: ClaimRules, *, now: datetime
) -> PendingReason:
    """Return why a pending job still is."""
    return pending_reason(
        spec.demand,
        await _standings(connection, spec.id),
        now=now,
        own_image=job.own_image,
        spec_archived=spec.archived is not None,
        limited=await _is_limited(connection, job, rules),
    )


async def find_queue_position(
    connection: AsyncConnection, job: JobRecord, rules: ClaimRules, *, now: datetime
) -> int | None:
    """Return the place of a pending job among those of its spec, from 1 on; None beyond `POSITION_MOST`.

    The order is that of claims: first what has waited too long, by age; then by priority and age. Limits of jobs at
    once may let a job behind go first.
    """
    overdue_since = now - timedelta(seconds=rules.starvation_s)
    older = and_(jobs.c.created <= job.created, or_(jobs.c.created < job.created, jobs.c.id < job.id))
    # Each is a range of one index; a single condition would read all that is pending.
    if job.created <= overdue_since:
        ahead: tuple[ColumnElement[bool], ...] = (older,)
    else:
        ahead = (
            jobs.c.priority > job.priority,
            and_(jobs.c.created <= overdue_since, jobs.c.priority <= job.priority),
            and_(jobs.c.priority == job.priority, jobs.c.created > overdue_since, older),
        )
    place = 1
    for condition in ahead:
        found = select(literal(1)).where(PENDING, jobs.c.spec_id == job.spec, condition).limit(POSITION_MOST)
        place += (await connection.execute(select(func.count()).select_from(found.subquery()))).scalar_one()
    return place if place <= POSITION_MOST else None


async def _standings(connection: AsyncConnection, spec: UUID) -> list[RunnerStanding]:
    query = (
        select(runners.c.slug, runners.c.last_heartbeat, runner_capabilities.c.capabilities)
        .select_from(
            runner_specs.join(runners, runners.c.id == runner_specs.c.runner_id).outerjoin(
                runner_capabilities, runner_capabilities.c.runner_id == runners.c.id
            )
        )
        .where(runner_specs.c.spec_id == spec, runners.c.archived.is_(None))
        .limit(_RUNNERS_MOST)
    )
    return [
        RunnerStanding(
            slug=row.slug,
            last_heartbeat=row.last_heartbeat,
            capabilities=None if row.capabilities is None else capabilities_of(row.capabilities),
        )
        for row in await connection.execute(query)
    ]


async def _is_limited(connection: AsyncConnection, job: JobRecord, rules: ClaimRules) -> bool:
    checks = [
        (jobs.c.project_id == job.project, rules.project_concurrency),
        (jobs.c.organization_id == job.organization, rules.organization_concurrency),
    ]
    if job.anonymous:
        checks.append(((jobs.c.source == job.source) & jobs.c.anonymous, rules.source_concurrency))
    for condition, most in checks:
        if most is None:
            continue
        running = select(func.count()).select_from(jobs).where(ACTIVE_ROWS, condition)
        if (await connection.execute(running)).scalar_one() >= most:
            return True
    return False
