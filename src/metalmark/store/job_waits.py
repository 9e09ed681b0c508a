"""What pending jobs wait for: the runners of their specs, and room under the limits."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from metalmark.model import PendingReason, RunnerStanding, pending_reason
from metalmark.store.claims import ClaimRules
from metalmark.store.job_conditions import ACTIVE_ROWS
from metalmark.store.jobs import JobRecord
from metalmark.store.runners import capabilities_of
from metalmark.store.specs import SpecRecord
from metalmark.store.tables import jobs, runner_capabilities, runner_specs, runners

_RUNNERS_MOST = 1000


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
