"""Claims: pending jobs given to runners, each under a lease with a number of its own.

A claim is one statement: it chooses a job, and takes it if it is still to be had. The choice is made per spec, from
the top of an index of pending jobs, so that neither jobs that ended nor jobs for other runners cost anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Double,
    Select,
    case,
    cast,
    func,
    literal,
    literal_column,
    or_,
    select,
    true,
    type_coerce,
    union_all,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.selectable import FromClause, Subquery

from metalmark.model import LONGEST_JOB_S, JobEvent, JobLimits, JobStatus
from metalmark.store.columns import Instant
from metalmark.store.job_events import add_event
from metalmark.store.specs import find_spec
from metalmark.store.tables import jobs, runner_specs, specs

if TYPE_CHECKING:
    from metalmark.store.specs import SpecRecord

_CANDIDATES = 32
_TURN = 6610_0001
_MICROSECONDS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class ClaimedJob:
    """A job that a runner was given, and the lease that it holds the job by."""

    job: UUID
    project: UUID
    runner: UUID
    lease: int
    """The fencing number: of all that was ever handed out for this job, only the last one moves it."""
    lease_expires: datetime
    """When the job is taken away again unless the runner gives a sign of life."""
    limit_expires: datetime
    """When the job as a whole has to be over; the pull token lives as long."""
    spec: SpecRecord
    config: Mapping[str, Any]
    """What the runner is told to do, as it was stored at submission: the wire's ``JobConfig``."""
    timeout_s: int
    """Limit of one iteration."""
    created: datetime
    claimed: datetime


@dataclass(frozen=True, kw_only=True)
class ClaimRules:
    """What of the configuration decides who gets which job."""

    limits: JobLimits = field(default_factory=JobLimits)
    starvation_s: float = 3600.0
    """A job that waited longer goes before younger ones of any priority."""
    project_concurrency: int | None = None
    organization_concurrency: int | None = None
    source_concurrency: int | None = None
    """Anonymous jobs of one address that run at once."""

    @property
    def limits_concurrency(self) -> bool:
        """Whether any number of jobs at once is limited."""
        return any((self.project_concurrency, self.organization_concurrency, self.source_concurrency))


@dataclass(frozen=True, kw_only=True)
class Claimant:
    """A runner that wants a job."""

    runner: UUID
    specs: frozenset[UUID]
    """The specs that it can serve now. Whether they are its own and in use is looked up by the claim."""
    public: bool = False
    """Whether it gets images of our own registry only."""


class NoClaim(Enum):
    """Why there was no job."""

    NOTHING = "nothing"
    """No pending job is for this runner."""
    CONTENDED = "contended"
    """There are some, which others are just about to take, or not to take: another try may succeed."""


async def claim_job(
    connection: AsyncConnection, claimant: Claimant, rules: ClaimRules, *, now: datetime
) -> ClaimedJob | NoClaim:
    """Give a runner the job that is due next among those it can serve.

    Overdue jobs come first, the oldest before all; then higher priorities, and among equals the older.
    """
    if not claimant.specs:
        return NoClaim.NOTHING
    postgresql = connection.dialect.name == "postgresql"
    if rules.limits_concurrency and postgresql:
        # Two claims that count at the same time would both find room for one more.
        await connection.execute(select(func.pg_advisory_xact_lock(_TURN)))
    choice = _choice(claimant, rules, now, postgresql=postgresql)
    locked = choice.with_for_update(skip_locked=True) if postgresql else choice
    lease_expires = now + timedelta(seconds=rules.limits.heartbeat_timeout_s)
    statement = (
        update(jobs)
        .where(jobs.c.id == locked.scalar_subquery())
        .values(
            status=JobStatus.CLAIMED.code,
            lease=jobs.c.lease + 1,
            runner_id=claimant.runner,
            lease_expires=lease_expires,
            limit_expires=_limit(rules.limits, now),
            last_heartbeat=now,
            claimed=now,
            modified=now,
        )
        .returning(*jobs.c)
    )
    row = (await connection.execute(statement)).one_or_none()
    if row is None:
        contended = postgresql and (await connection.execute(choice)).first() is not None
        return NoClaim.CONTENDED if contended else NoClaim.NOTHING
    spec = await find_spec(connection, row.spec_id)
    assert spec is not None, "the foreign key restricts deletion"
    await add_event(
        connection,
        job=row.id,
        at=now,
        event=JobEvent.CLAIM,
        before=JobStatus.PENDING,
        after=JobStatus.CLAIMED,
        lease=row.lease,
        runner=claimant.runner,
    )
    return ClaimedJob(
        job=row.id,
        project=row.project_id,
        runner=claimant.runner,
        lease=row.lease,
        lease_expires=lease_expires,
        limit_expires=row.limit_expires,
        spec=spec,
        config=row.config,
        timeout_s=row.timeout_s,
        created=row.created,
        claimed=now,
    )


def _limit(limits: JobLimits, now: datetime) -> ColumnElement[datetime]:
    """`time_limit`, as the database computes it: in floating point, where two large numbers do not overflow."""
    seconds = cast(jobs.c.iterations, Double) * (jobs.c.timeout_s + limits.grace_s) + limits.start_allowance_s
    bounded = case((seconds > LONGEST_JOB_S, LONGEST_JOB_S), else_=seconds)
    microseconds = cast(literal(now, Instant), BigInteger) + cast(bounded * _MICROSECONDS, BigInteger)
    return type_coerce(microseconds, Instant)


def _choice(claimant: Claimant, rules: ClaimRules, now: datetime, *, postgresql: bool) -> Select[tuple[UUID]]:
    """Return the query for the one job that is due next."""
    overdue_since = now - timedelta(seconds=rules.starvation_s)
    served = (
        select(specs.c.id, specs.c.anonymous)
        .join(runner_specs, runner_specs.c.spec_id == specs.c.id)
        .where(
            runner_specs.c.runner_id == claimant.runner,
            specs.c.archived.is_(None),
            specs.c.id.in_(claimant.specs),
        )
        .subquery("served")
    )
    if postgresql:
        candidates = union_all(
            _top(served, claimant, rules, overdue_since=None),
            _top(served, claimant, rules, overdue_since=overdue_since),
        )
    else:
        # One writer: whatever is on top is to be had.
        tops = (_ranked(served, claimant, rules, overdue_since=since).limit(1) for since in (None, overdue_since))
        candidates = union_all(*(select(top.scalar_subquery()).select_from(served) for top in tops))
    pick = jobs.alias("pick")
    overdue = pick.c.created <= overdue_since
    return (
        select(pick.c.id)
        .where(pick.c.id.in_(candidates), literal_column("pick.status = 0"))
        .order_by(
            case((overdue, 0), else_=1),
            case((overdue, 0), else_=-pick.c.priority),
            pick.c.created,
            pick.c.id,
        )
        .limit(1)
    )


def _top(
    served: Subquery, claimant: Claimant, rules: ClaimRules, *, overdue_since: datetime | None
) -> Select[tuple[UUID]]:
    """Return the query for the first few jobs of every spec: more than one, as others may be taking the first."""
    first = _ranked(served, claimant, rules, overdue_since=overdue_since).limit(_CANDIDATES).lateral("first")
    return select(first.c.id).select_from(served.join(first, true()))


def _ranked(
    served: Subquery, claimant: Claimant, rules: ClaimRules, *, overdue_since: datetime | None
) -> Select[tuple[UUID]]:
    """Return the query for the jobs of one spec that may be claimed, in the order of one of the indexes."""
    job = jobs.alias("job")
    query = (
        select(job.c.id)
        .where(literal_column("job.status = 0"), job.c.spec_id == served.c.id)
        .where(or_(served.c.anonymous, ~job.c.anonymous))
        .where(*_room(job, rules))
        .correlate(served)
    )
    if claimant.public:
        query = query.where(job.c.own_image)
    if overdue_since is not None:
        return query.where(job.c.created <= overdue_since).order_by(job.c.created, job.c.id)
    return query.order_by(job.c.priority.desc(), job.c.created, job.c.id)


def _room(job: FromClause, rules: ClaimRules) -> list[ColumnElement[bool]]:
    """Return the conditions that one more job at a time is allowed."""
    conditions: list[ColumnElement[bool]] = []
    other = jobs.alias("other")
    other_runs: ColumnElement[bool] = literal_column("other.status IN (1, 2)")
    for column, most in (
        ("project_id", rules.project_concurrency),
        ("organization_id", rules.organization_concurrency),
    ):
        if most is not None:
            other = jobs.alias("other")
            running = select(func.count()).where(
                other.c[column] == job.c[column], literal_column("other.status IN (1, 2)")
            )
            conditions.append(running.scalar_subquery() < most)
    if rules.source_concurrency is not None:
        running = select(func.count()).where(other.c.source == job.c.source, other.c.anonymous, other_runs)
        conditions.append(or_(~job.c.anonymous, running.scalar_subquery() < rules.source_concurrency))
    return conditions
