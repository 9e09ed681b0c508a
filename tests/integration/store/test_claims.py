"""Claims on both engines: order, eligibility, limits, leases, and many at once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import anyio
import pytest
from tests.integration.store.job_floor import Floor

from metalmark.model import JobLimits, JobStatus
from metalmark.store import (
    Claimant,
    ClaimedJob,
    ClaimRules,
    Isolation,
    JobRecord,
    NoClaim,
    RunnerChanges,
    SpecChanges,
    Store,
    claim_job,
    claim_jobs,
    find_job,
    find_runner,
    list_events,
    rotate_runner_key,
    update_runner,
    update_spec,
)

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 31, 9, 15, tzinfo=UTC)


@pytest.fixture
async def floor(store: Store) -> Floor:
    made = Floor(store=store, now=NOW)
    await made.lay()
    return made


async def claim(
    floor: Floor,
    runner: UUID,
    *specs: UUID,
    rules: ClaimRules | None = None,
    now: datetime = NOW,
    public: bool = False,
) -> ClaimedJob | NoClaim:
    claimant = Claimant(runner=runner, specs=frozenset(specs), public=public)
    return await floor.store.write(
        lambda connection: claim_job(connection, claimant, rules or ClaimRules(), now=now),
        isolation=Isolation.READ_COMMITTED,
    )


async def claimed(floor: Floor, runner: UUID, *specs: UUID, **options: object) -> UUID:
    found = await claim(floor, runner, *specs, **options)  # type: ignore[arg-type]
    assert isinstance(found, ClaimedJob)
    return found.job


async def test_priority_then_age(floor: Floor) -> None:
    spec = await floor.spec()
    runner = await floor.runner(spec)
    young = await floor.job(spec, now=NOW)
    old = await floor.job(spec, now=NOW - timedelta(seconds=9))
    urgent = await floor.job(spec, now=NOW, priority=200)
    late = await floor.job(spec, now=NOW - timedelta(seconds=99), priority=0)
    assert [await claimed(floor, runner, spec) for _ in range(4)] == [urgent.id, old.id, young.id, late.id]
    assert await claim(floor, runner, spec) is NoClaim.NOTHING


async def test_what_waited_too_long_goes_before_what_is_urgent(floor: Floor) -> None:
    spec = await floor.spec()
    runner = await floor.runner(spec)
    starved = await floor.job(spec, now=NOW - timedelta(seconds=3600), priority=0)
    urgent = await floor.job(spec, now=NOW - timedelta(seconds=3599), priority=255)
    assert [await claimed(floor, runner, spec) for _ in range(2)] == [starved.id, urgent.id]


async def test_the_best_of_several_specs_is_taken(floor: Floor) -> None:
    specs = [await floor.spec(f"spec {n}") for n in range(3)]
    runner = await floor.runner(*specs)
    for n, spec in enumerate(specs):
        for k in range(3):
            await floor.job(spec, priority=100 + k * 10 + n)
    order = []
    for _ in range(9):
        found = await find(floor, await claimed(floor, runner, *specs))
        order.append(found.priority)
    assert order == sorted(order, reverse=True)


async def find(floor: Floor, job: UUID) -> JobRecord:
    async with floor.store.read() as connection:
        found = await find_job(connection, job)
    assert found is not None
    return found


async def test_only_the_runners_own_specs_that_fit_and_are_in_use(floor: Floor) -> None:
    own, other, busy = [await floor.spec(name) for name in ("own", "other", "busy")]
    runner = await floor.runner(own, busy)
    await floor.job(other)
    await floor.job(busy)
    # It asks for a spec that is not its own, and leaves out one that does not fit now.
    assert await claim(floor, runner, own, other) is NoClaim.UNFIT
    job = await floor.job(own)
    await floor.store.write(lambda c: update_spec(c, spec_id=own, changes=SpecChanges(archived=True), now=NOW))
    assert await claim(floor, runner, own, other) is NoClaim.UNFIT
    await floor.store.write(lambda c: update_spec(c, spec_id=own, changes=SpecChanges(archived=False), now=NOW))
    assert await claimed(floor, runner, own, other) == job.id


async def test_who_is_not_welcome_any_more_gets_nothing_whatever_was_looked_up_before(floor: Floor) -> None:
    spec = await floor.spec()
    runner, other = await floor.runner(spec), await floor.runner(spec)
    async with floor.store.read() as connection:
        found = [await find_runner(connection, each) for each in (runner, other)]
    old, others = [each.key_digest for each in found if each is not None]
    job = await floor.job(spec)

    async def ask(*wanting: UUID, keys: set[str]) -> list[ClaimedJob | NoClaim]:
        claimant = Claimant(runner=wanting[0], specs=frozenset({spec}))
        return await floor.store.write(lambda c: claim_jobs(c, wanting, claimant, ClaimRules(), now=NOW, keys=keys))

    await floor.store.write(lambda c: rotate_runner_key(c, runner_id=runner, key_digest="new", now=NOW))
    assert await ask(runner, keys={old}) == [NoClaim.UNFIT]
    # Nor does anybody get anything by its side before it is known who of them it is.
    assert await ask(runner, other, keys={old, others}) == [NoClaim.ALONE] * 2
    await floor.store.write(lambda c: update_runner(c, runner_id=runner, changes=RunnerChanges(archived=True), now=NOW))
    assert await ask(runner, keys={"new"}) == [NoClaim.UNFIT]
    assert await claim(floor, runner, spec) is NoClaim.UNFIT
    await floor.store.write(
        lambda c: update_runner(c, runner_id=runner, changes=RunnerChanges(archived=False), now=NOW)
    )
    [got] = await ask(runner, keys={"new"})
    assert isinstance(got, ClaimedJob)
    assert got.job == job.id
    assert await ask(other, keys={others}) == [NoClaim.NOTHING]


async def test_public_runners_get_images_of_our_own_registry_only(floor: Floor) -> None:
    spec = await floor.spec()
    runner = await floor.runner(spec)
    foreign = await floor.job(spec, own_image=False)
    assert await claim(floor, runner, spec, public=True) is NoClaim.NOTHING
    own = await floor.job(spec)
    assert await claimed(floor, runner, spec, public=True) == own.id
    assert await claimed(floor, runner, spec) == foreign.id


async def test_strangers_jobs_run_on_specs_marked_for_them(floor: Floor) -> None:
    closed, opened = await floor.spec("closed"), await floor.spec("open", anonymous=True)
    runner = await floor.runner(closed, opened)
    await floor.job(closed, anonymous=True, priority=200)
    job = await floor.job(opened, anonymous=True)
    assert await claimed(floor, runner, closed, opened) == job.id
    assert await claim(floor, runner, closed, opened) is NoClaim.NOTHING


async def test_a_claim_leases_the_job(floor: Floor) -> None:
    spec = await floor.spec()
    runner = await floor.runner(spec)
    job = await floor.job(spec, timeout_s=30, iterations=3)
    rules = ClaimRules(limits=JobLimits(heartbeat_timeout_s=90, grace_s=60, start_allowance_s=600))
    found = await claim(floor, runner, spec, rules=rules)
    assert isinstance(found, ClaimedJob)
    assert (found.lease, found.spec.id, found.timeout_s) == (1, spec, 30)
    assert found.config["digest"].startswith("sha256:")
    assert found.lease_expires == NOW + timedelta(seconds=90)
    assert found.limit_expires == NOW + timedelta(seconds=3 * 90 + 600)
    stored = await find(floor, job.id)
    assert stored.status is JobStatus.CLAIMED
    assert (stored.runner, stored.claimed, stored.limit_expires) == (runner, NOW, found.limit_expires)
    async with floor.store.read() as connection:
        (event,) = await list_events(connection, job.id)
    assert (event.before, event.after, event.lease, event.runner) == (
        JobStatus.PENDING,
        JobStatus.CLAIMED,
        1,
        runner,
    )


async def test_the_largest_limit_is_no_overflow(floor: Floor) -> None:
    spec = await floor.spec()
    runner = await floor.runner(spec)
    await floor.job(spec, timeout_s=2**31 - 1, iterations=2**32 - 1)
    found = await claim(floor, runner, spec)
    assert isinstance(found, ClaimedJob)
    assert found.limit_expires - NOW == timedelta(days=100 * 365)


@pytest.mark.parametrize(
    "rules",
    [ClaimRules(project_concurrency=2), ClaimRules(organization_concurrency=2)],
    ids=["project", "organization"],
)
async def test_jobs_over_a_limit_are_passed_over(floor: Floor, rules: ClaimRules) -> None:
    other = Floor(store=floor.store, now=NOW)
    await other.lay()
    spec = await floor.spec()
    runner = await floor.runner(spec)
    for _ in range(3):
        await floor.job(spec, priority=200)
    foreign = await other.job(spec)
    first = [await claimed(floor, runner, spec, rules=rules) for _ in range(3)]
    assert first[2] == foreign.id
    assert await claim(floor, runner, spec, rules=rules) is NoClaim.NOTHING


async def test_a_source_is_limited_for_strangers_only(floor: Floor) -> None:
    spec = await floor.spec(anonymous=True)
    runner = await floor.runner(spec)
    rules = ClaimRules(source_concurrency=1)
    for _ in range(2):
        await floor.job(spec, anonymous=True, source="198.51.100.7")
    for _ in range(2):
        await floor.job(spec, source="198.51.100.7")
    assert len({await claimed(floor, runner, spec, rules=rules) for _ in range(3)}) == 3
    assert await claim(floor, runner, spec, rules=rules) is NoClaim.NOTHING
    await floor.job(spec, anonymous=True, source="198.51.100.8")
    await claimed(floor, runner, spec, rules=rules)


async def claim_until_none(floor: Floor, runner: UUID, spec: UUID, rules: ClaimRules, got: list[UUID]) -> None:
    while True:
        found = await claim(floor, runner, spec, rules=rules)
        if isinstance(found, ClaimedJob):
            got.append(found.job)
        elif found is NoClaim.NOTHING:
            return


async def test_many_at_once_take_each_job_once(floor: Floor, soak: bool) -> None:
    spec = await floor.spec()
    runners = [await floor.runner(spec) for _ in range(6)]
    jobs = {(await floor.job(spec)).id for _ in range(400 if soak else 40)}
    got: list[UUID] = []
    async with anyio.create_task_group() as tasks:
        for runner in runners:
            tasks.start_soon(claim_until_none, floor, runner, spec, ClaimRules(), got)
    assert sorted(got) == sorted(jobs)


async def test_many_at_once_keep_the_limit(floor: Floor) -> None:
    spec = await floor.spec()
    runners = [await floor.runner(spec) for _ in range(6)]
    for _ in range(12):
        await floor.job(spec)
    got: list[UUID] = []
    async with anyio.create_task_group() as tasks:
        for runner in runners:
            tasks.start_soon(claim_until_none, floor, runner, spec, ClaimRules(project_concurrency=3), got)
    assert len(got) == 3


async def test_several_runners_by_one_statement(floor: Floor) -> None:
    spec = await floor.spec()
    runners = [await floor.runner(spec) for _ in range(3)]
    stranger = await floor.runner()
    jobs = {(await floor.job(spec)).id for _ in range(2)}

    async def together(*wanting: UUID) -> list[ClaimedJob | NoClaim]:
        claimant = Claimant(runner=wanting[0], specs=frozenset({spec}))
        return await floor.store.write(lambda c: claim_jobs(c, wanting, claimant, ClaimRules(), now=NOW))

    # One of them does not serve the spec any more: nobody gets its jobs by the others' right.
    assert await together(*runners, stranger) == [NoClaim.ALONE] * 4
    found = await together(*runners)
    given = {job.job: job.runner for job in found if isinstance(job, ClaimedJob)}
    assert set(given) == jobs
    assert len(set(given.values())) == 2
    assert [job.runner for job in found[:2] if isinstance(job, ClaimedJob)] == [
        runner for runner in runners if runner in given.values()
    ][:2]
    assert found.count(NoClaim.NOTHING) == 1
    # One runner may want several.
    more = {(await floor.job(spec)).id for _ in range(2)}
    assert {job.job for job in await together(runners[0], runners[0]) if isinstance(job, ClaimedJob)} == more
