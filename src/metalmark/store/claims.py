"""Claims: pending jobs given to runners, each under a lease with a number of its own.

A claim is one statement: it chooses jobs, and takes them if they are still to be had. The choice is made per spec, from
the top of an index of pending jobs, so that neither jobs that ended nor jobs for other runners cost anything. Runners
that can serve the same specs are given their jobs by one statement together, as under load that is what counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import BindParameter, String, TextClause, bindparam, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.selectable import TextualSelect

from metalmark.model import JobEvent, JobLimits, JobStatus, new_id
from metalmark.store.columns import Identifier, Instant
from metalmark.store.specs import spec_of
from metalmark.store.tables import job_events, jobs, specs

if TYPE_CHECKING:
    from metalmark.store.specs import SpecRecord

_CANDIDATES = 32
_TURN = 6610_0001


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
    key_digest: str | None = None
    """Of the key that it came with, which may be its own no more; None where that is not asked."""


class NoClaim(Enum):
    """Why there was no job."""

    NOTHING = "nothing"
    """No pending job is for this runner."""
    CONTENDED = "contended"
    """There are some, which others are just about to take, or not to take: another try may succeed."""
    ALONE = "alone"
    """None for all of several runners together, as one of them is `UNFIT`: try each alone."""
    UNFIT = "unfit"
    """The runner serves not all of these specs any more, is archived, or has another key: another may get a job."""


async def claim_job(
    connection: AsyncConnection, claimant: Claimant, rules: ClaimRules, *, now: datetime
) -> ClaimedJob | NoClaim:
    """Give a runner the job that is due next among those it can serve; see `claim_jobs`."""
    keys = () if claimant.key_digest is None else (claimant.key_digest,)
    (found,) = await claim_jobs(connection, [claimant.runner], claimant, rules, now=now, keys=keys)
    return found


async def claim_jobs(
    connection: AsyncConnection,
    runners: Sequence[UUID],
    claimant: Claimant,
    rules: ClaimRules,
    *,
    now: datetime,
    keys: Collection[str] = (),
) -> list[ClaimedJob | NoClaim]:
    """Give some runners that can serve the same specs a job each, as far as there are any.

    Overdue jobs come first, the oldest before all; then higher priorities, and among equals the older.

    Args:
        connection: Of a write.
        runners: Who gets one. A runner may be there more than once, for several jobs.
        claimant: What all of them can serve.
        rules: Who gets which job. With a limit on jobs at once, one runner at a time.
        now: The time of day.
        keys: Digests of the keys that these runners came with: who has another one by now gets nothing. Without any,
            keys are not asked for.

    Returns:
        What became of each, in the order of the runners.
    """
    nothing: list[ClaimedJob | NoClaim] = [NoClaim.NOTHING] * len(runners)
    if not claimant.specs:
        return nothing
    assert len(runners) == 1 or not rules.limits_concurrency, "only one can see what room the one before left"
    postgresql = connection.dialect.name == "postgresql"
    if rules.limits_concurrency and postgresql:
        # Two claims that count at the same time would both find room for one more.
        await connection.execute(select(func.pg_advisory_xact_lock(_TURN)))
    lease_expires = now + timedelta(seconds=rules.limits.heartbeat_timeout_s)
    values = _values(runners, claimant, rules, now) | {"keys": sorted(keys) or [""], "any_key": int(not keys)}
    statement = _statement(len(runners), postgresql, claimant.public, _room(rules))
    given = {f"runner_{number}": runner for number, runner in enumerate(runners)}
    if postgresql:
        given |= {f"event_{number}": new_id() for number in range(len(runners))}
    rows = (await connection.execute(statement, {**values, **given, "lease_expires": lease_expires})).all()
    jobs_of: defaultdict[UUID, list[ClaimedJob]] = defaultdict(list)
    if rows:
        found = await connection.execute(select(specs).where(specs.c.id.in_({row.spec_id for row in rows})))
        spec_by_id = {row.id: spec_of(row) for row in found}
        if not postgresql:
            # There it is part of the claim, which spares a round trip.
            await connection.execute(insert(job_events), [_event(row, now) for row in rows])
        for row in rows:
            job = ClaimedJob(
                job=row.id,
                project=row.project_id,
                runner=row.runner_id,
                lease=row.lease,
                lease_expires=lease_expires,
                limit_expires=row.limit_expires,
                spec=spec_by_id[row.spec_id],
                config=row.config,
                timeout_s=row.timeout_s,
                created=row.created,
                claimed=now,
            )
            jobs_of[row.runner_id].append(job)
    none = NoClaim.NOTHING
    if len(rows) < len(runners):
        none = await _why_none(connection, claimant, rules, values)
    return [jobs_of[runner].pop() if jobs_of[runner] else none for runner in runners]


async def _why_none(
    connection: AsyncConnection, claimant: Claimant, rules: ClaimRules, values: dict[str, Any]
) -> NoClaim:
    """Return why not every runner was given a job."""
    postgresql = connection.dialect.name == "postgresql"
    if postgresql and (await connection.execute(_look(claimant.public, _room(rules)), values)).first() is not None:
        return NoClaim.CONTENDED
    if (await connection.execute(_DIFFER, values)).scalar_one():
        return NoClaim.ALONE if values["runner_count"] > 1 else NoClaim.UNFIT
    return NoClaim.NOTHING


def _event(row: Any, now: datetime) -> dict[str, Any]:  # noqa: ANN401 - a row of `_statement`
    return {
        "id": new_id(),
        "job_id": row.id,
        "at": now,
        "event": str(JobEvent.CLAIM),
        "status_before": JobStatus.PENDING.code,
        "status_after": JobStatus.CLAIMED.code,
        "lease": row.lease,
        "runner_id": row.runner_id,
    }


def _values(runners: Sequence[UUID], claimant: Claimant, rules: ClaimRules, now: datetime) -> dict[str, Any]:
    distinct = sorted(set(runners))
    return {
        "specs": sorted(claimant.specs),
        "runners": distinct,
        "runner_count": len(distinct),
        "wanted": len(runners),
        "most": len(runners) + _CANDIDATES,
        "now": now,
        "overdue_since": now - timedelta(seconds=rules.starvation_s),
        "grace_s": rules.limits.grace_s,
        "allowance_s": rules.limits.start_allowance_s,
        "longest_s": rules.limits.max_duration_s,
        **{name: most for name, most in _limits_of(rules).items() if most is not None},
    }


def _limits_of(rules: ClaimRules) -> dict[str, int | None]:
    return {
        "project_most": rules.project_concurrency,
        "organization_most": rules.organization_concurrency,
        "source_most": rules.source_concurrency,
    }


def _room(rules: ClaimRules) -> frozenset[str]:
    return frozenset(name for name, most in _limits_of(rules).items() if most is not None)


# The statement is text, and made once for each of its shapes: put together from expressions it took longer to make and
# to recognize than to carry out.

# In the claim itself: whatever was looked up before may have changed since.
_WELCOME = "runners.id IN :runners AND runners.archived IS NULL AND (:any_key = 1 OR runners.key_hash IN :keys)"
_SERVED = f"""served AS (
  SELECT specs.id, specs.anonymous FROM specs
  WHERE specs.archived IS NULL AND specs.id IN :specs AND :runner_count = (
    SELECT count(*) FROM runner_specs JOIN runners ON runners.id = runner_specs.runner_id
    WHERE runner_specs.spec_id = specs.id AND {_WELCOME}))"""  # noqa: S608 - of constants

_RUNNING = "(SELECT count(*) FROM jobs AS other WHERE other.status IN (1, 2) AND "
_ROOM = {
    "project_most": _RUNNING + "other.project_id = job.project_id) < :project_most",
    "organization_most": _RUNNING + "other.organization_id = job.organization_id) < :organization_most",
    "source_most": "(NOT job.anonymous OR "
    + _RUNNING
    + "other.source = job.source AND other.anonymous) < :source_most)",
}

_TOP = "SELECT job.id FROM jobs AS job WHERE job.status = 0 AND job.spec_id = served.id AND {eligible} ORDER BY "
_BY_RANK = _TOP + "job.priority DESC, job.created, job.id LIMIT :most"
_BY_AGE = _TOP.replace("{eligible}", "{eligible} AND job.created <= :overdue_since") + "job.created, job.id LIMIT :most"
_EACH = {
    True: "SELECT top.id FROM served CROSS JOIN LATERAL ({top}) AS top",
    # SQLite has no LATERAL, and evaluates this for every spec that is served.
    False: "SELECT chosen.id FROM served CROSS JOIN jobs AS chosen WHERE chosen.id IN ({top})",
}

# The plus keeps both planners from going through all pending jobs here, and the array PostgreSQL from joining.
_CHOICE = """SELECT pick.id FROM jobs AS pick WHERE pick.id {among} AND +pick.status = 0
  ORDER BY CASE WHEN pick.created <= :overdue_since THEN 0 ELSE 1 END,
    CASE WHEN pick.created <= :overdue_since THEN 0 ELSE -pick.priority END, pick.created, pick.id
  LIMIT :wanted"""
_AMONG = {True: "= ANY (ARRAY(SELECT id FROM candidates))", False: "IN (SELECT id FROM candidates)"}

_SECONDS = "(CAST(jobs.iterations AS DOUBLE PRECISION) * (jobs.timeout_s + :grace_s) + :allowance_s)"
_TAKE = f"""UPDATE jobs SET status = 1, lease = jobs.lease + 1, runner_id = given.runner,
  lease_expires = :lease_expires, limit_expires = :now + CAST(
    1000000 * CASE WHEN {_SECONDS} > :longest_s THEN :longest_s ELSE {_SECONDS} END AS BIGINT),
  last_heartbeat = :now, claimed = :now, modified = :now
FROM numbered JOIN ({{given}}) AS given ON given.number = numbered.number
WHERE jobs.id = numbered.id
RETURNING jobs.id, jobs.project_id, jobs.runner_id, jobs.spec_id, jobs.lease, jobs.limit_expires, jobs.config,
  jobs.timeout_s, jobs.created"""  # noqa: S608 - of constants
_LOGGED = f"""INSERT INTO job_events (id, job_id, at, event, status_before, status_after, lease, runner_id)
SELECT taken.event, taken.id, :now, '{JobEvent.CLAIM}', {JobStatus.PENDING.code}, {JobStatus.CLAIMED.code}, taken.lease,
  taken.runner_id FROM taken"""  # noqa: S608 - of constants
_TAKEN = (
    jobs.c.id,
    jobs.c.project_id,
    jobs.c.runner_id,
    jobs.c.spec_id,
    jobs.c.lease,
    jobs.c.limit_expires,
    jobs.c.config,
    jobs.c.timeout_s,
    jobs.c.created,
)


def _candidates(*, postgresql: bool, public: bool, room: frozenset[str]) -> str:
    conditions = ["(served.anonymous OR NOT job.anonymous)", *(_ROOM[name] for name in sorted(room))]
    if public:
        conditions.append("job.own_image")
    eligible = " AND ".join(conditions)
    tops = (top.format(eligible=eligible) for top in (_BY_RANK, _BY_AGE))
    return "candidates AS (" + " UNION ALL ".join(_EACH[postgresql].format(top=top) for top in tops) + ")"


@lru_cache(maxsize=1024)
def _statement(count: int, postgresql: bool, public: bool, room: frozenset[str]) -> TextualSelect:  # noqa: FBT001 - the key of a cache
    """Return the statement that gives so many runners a job each."""
    candidates = _candidates(postgresql=postgresql, public=public, room=room)
    choice = _CHOICE.format(among=_AMONG[postgresql])
    locked = f"{choice} FOR UPDATE SKIP LOCKED" if postgresql else choice
    numbered = "numbered AS (SELECT picked.id, row_number() OVER () AS number FROM picked)"
    names = ("runner", "event") if postgresql else ("runner",)
    columns = ", ".join(f"column{place} AS {name}" for place, name in enumerate(("number", *names), 1))
    lines = ", ".join(f"({number + 1}, {', '.join(f':{name}_{number}' for name in names)})" for number in range(count))
    take = _TAKE.format(given=f"SELECT {columns} FROM (VALUES {lines}) AS lines")  # noqa: S608 - of constants
    if postgresql:
        take = f", taken AS ({take}, given.event), logged AS ({_LOGGED}) SELECT * FROM taken"  # noqa: S608 - of constants
    sql = f"WITH {_SERVED}, {candidates}, picked AS ({locked}), {numbered} {take}"
    given = [bindparam(f"{name}_{number}", type_=Identifier) for name in names for number in range(count)]
    return _typed(sql).bindparams(bindparam("lease_expires", type_=Instant), *given).columns(*_TAKEN)


@lru_cache(maxsize=64)
def _look(public: bool, room: frozenset[str]) -> TextClause:  # noqa: FBT001 - the key of a cache
    """Return the query for jobs that may be claimed, whether or not somebody is about to."""
    candidates = _candidates(postgresql=True, public=public, room=room)
    return _typed(f"WITH {_SERVED}, {candidates} {_CHOICE.format(among=_AMONG[True])}")


def _typed(sql: str) -> TextClause:
    typed: list[BindParameter[Any]] = [
        bindparam("specs", expanding=True, type_=Identifier),
        bindparam("runners", expanding=True, type_=Identifier),
        bindparam("keys", expanding=True, type_=String),
    ]
    typed += [bindparam(name, type_=Instant) for name in ("now", "overdue_since") if f":{name}" in sql]
    return text(sql).bindparams(*typed)


_DIFFER = _typed(f"""SELECT (SELECT count(*) FROM runner_specs JOIN specs ON specs.id = runner_specs.spec_id
    JOIN runners ON runners.id = runner_specs.runner_id
    WHERE specs.archived IS NULL AND runner_specs.spec_id IN :specs AND {_WELCOME})
  < :runner_count * (SELECT count(*) FROM specs WHERE specs.archived IS NULL AND specs.id IN :specs)""")  # noqa: S608 - of constants
"""Whether not every one of some runners is welcome and serves every one of some specs that are in use."""
