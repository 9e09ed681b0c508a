"""Dispatch on both engines: who is woken by what, and that no job is left while somebody waits for it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

import anyio
import pytest
from sqlalchemy import update
from tests.integration.store.job_floor import Floor

from metalmark.model import Capabilities, JobEvent, JobStatus, public_runner
from metalmark.server.dispatcher import Dispatcher
from metalmark.store import (
    ClaimedJob,
    ClaimRules,
    Connection,
    JobRecord,
    LeaseHolder,
    SpecChanges,
    Store,
    add_runner_spec,
    find_job,
    move_job,
    update_spec,
)
from metalmark.store.tables import runners
from metalmark.system import SystemClock
from metalmark.testing.postgresql import Cluster

pytestmark = pytest.mark.anyio
CLOCK = SystemClock()
ABLE = Capabilities(sandboxes=frozenset({"firecracker"}))
SOON_S = 20.0
AWHILE_S = 0.15


class Hall:
    """Runners that wait at a dispatcher, and what each was given."""

    def __init__(self, dispatcher: Dispatcher, tasks: anyio.abc.TaskGroup) -> None:
        self.dispatcher = dispatcher
        self.tasks = tasks
        self.given: dict[UUID, ClaimedJob | None] = {}

    async def wait(
        self, runner: UUID, *, capabilities: Capabilities = ABLE, specs: set[UUID] | None = None, for_s: float = SOON_S
    ) -> anyio.CancelScope:
        """Have a runner wait, and return once it sleeps."""
        scope = anyio.CancelScope()

        async def stand() -> None:
            with scope:
                deadline_s = CLOCK.monotonic_s() + for_s
                self.given[runner] = await self.dispatcher.wait_for_job(
                    runner=runner, capabilities=capabilities, specs=specs, deadline_s=deadline_s
                )

        self.tasks.start_soon(stand)
        await self.settled()
        return scope

    async def settled(self) -> None:
        """Wait until every runner sleeps or has gone."""
        with anyio.fail_after(SOON_S):
            await anyio.sleep(0.01)
            while any(waiter.look or waiter.busy for waiter in self.dispatcher._waiters):
                await anyio.sleep(0.01)

    async def gone(self, count: int = 0) -> None:
        """Wait until no more than so many runners wait."""
        with anyio.fail_after(SOON_S):
            while self.dispatcher.waiting_count > count:
                await anyio.sleep(0.005)


@asynccontextmanager
async def opened(store: Store, rules: ClaimRules | None = None) -> AsyncIterator[Hall]:
    dispatcher = Dispatcher(store, CLOCK, rules or ClaimRules())
    async with anyio.create_task_group() as tasks:
        await tasks.start(dispatcher.run)
        yield Hall(dispatcher, tasks)
        tasks.cancel_scope.cancel()


@pytest.fixture
async def floor(store: Store) -> Floor:
    made = Floor(store=store, now=CLOCK.now())
    await made.lay()
    return made


async def find(store: Store, job: UUID) -> JobRecord:
    async with store.read() as connection:
        found = await find_job(connection, job)
    assert found is not None
    return found


async def test_a_job_wakes_one_of_those_that_wait(floor: Floor) -> None:
    spec, other = await floor.spec("one"), await floor.spec("two")
    runners = [await floor.runner(spec) for _ in range(3)]
    bystander = await floor.runner(other)
    async with opened(floor.store) as hall:
        for runner in (*runners, bystander):
            await hall.wait(runner)
        first, second = await floor.job(spec), await floor.job(spec)
        await hall.gone(2)
        await hall.settled()
        # The longest wait comes first.
        assert {job.job for job in hall.given.values() if job} == {first.id, second.id}
        assert set(hall.given) == set(runners[:2])


async def test_a_job_that_was_there_before_is_taken_at_once_even_past_the_deadline(floor: Floor) -> None:
    spec = await floor.spec()
    runner, late = await floor.runner(spec), await floor.runner(spec)
    job = await floor.job(spec)
    async with opened(floor.store) as hall:
        await hall.wait(runner, for_s=-1)
        await hall.wait(late, for_s=-1)
        await hall.gone()
        first = hall.given[runner]
        assert first is not None
        assert (first.job, hall.given[late]) == (job.id, None)


async def test_a_wait_ends_at_its_deadline(floor: Floor) -> None:
    runner = await floor.runner(await floor.spec())
    async with opened(floor.store) as hall:
        started = time.monotonic()
        await hall.wait(runner, for_s=0.3)
        await hall.gone()
        assert hall.given == {runner: None}
        assert time.monotonic() - started >= 0.3


async def test_only_specs_that_fit_and_were_proved(floor: Floor) -> None:
    fits, full = await floor.spec("fits"), await floor.spec("full")
    picky, weak = await floor.runner(fits, full), await floor.runner(fits, full)
    async with opened(floor.store) as hall:
        await hall.wait(weak, capabilities=Capabilities(sandboxes=frozenset({"container"})))
        await hall.wait(picky, specs={fits})
        await floor.job(full)
        await anyio.sleep(AWHILE_S)
        await hall.settled()
        assert hall.given == {}
        job = await floor.job(fits)
        await hall.gone(1)
        found = hall.given[picky]
        assert found is not None
        assert found.job == job.id


async def test_a_public_runner_hands_on_what_it_may_not_have(floor: Floor) -> None:
    spec = await floor.spec()
    public, own = await floor.runner(spec), await floor.runner(spec)
    async with opened(floor.store) as hall:
        await hall.wait(public, capabilities=public_runner())
        await hall.wait(own)
        job = await floor.job(spec, own_image=False)
        await hall.gone(1)
        assert set(hall.given) == {own}
        assert (await find(floor.store, job.id)).runner == own


async def test_a_job_goes_to_another_when_the_runner_that_it_woke_is_not_welcome_any_more(floor: Floor) -> None:
    spec = await floor.spec()
    first, second = await floor.runner(spec), await floor.runner(spec)
    async with opened(floor.store) as hall:
        await hall.wait(first)
        await hall.wait(second)

        async def archive_unheard(connection: Connection) -> None:
            await connection.execute(update(runners).where(runners.c.id == first).values(archived=floor.now))

        await floor.store.write(archive_unheard)
        job = await floor.job(spec)
        await hall.gone(1)
        assert set(hall.given) == {second}
        assert (await find(floor.store, job.id)).runner == second


async def test_a_runner_that_gets_a_spec_is_told(floor: Floor) -> None:
    spec = await floor.spec()
    runner = await floor.runner()
    job = await floor.job(spec)
    async with opened(floor.store) as hall:
        await hall.wait(runner)
        await floor.store.write(lambda c: add_runner_spec(c, runner_id=runner, spec_id=spec, now=floor.now))
        await hall.gone()
        found = hall.given[runner]
        assert found is not None
        assert found.job == job.id


@pytest.mark.parametrize(
    ("closed", "opened_again"),
    [
        (SpecChanges(archived=True), SpecChanges(archived=False)),
        (SpecChanges(anonymous=False), SpecChanges(anonymous=True)),
    ],
    ids=["archived", "not for anonymous jobs"],
)
async def test_all_jobs_of_a_spec_that_is_opened_again_find_runners(
    floor: Floor, closed: SpecChanges, opened_again: SpecChanges
) -> None:
    spec = await floor.spec(anonymous=True)
    runners = [await floor.runner(spec) for _ in range(3)]

    async def change(changes: SpecChanges) -> None:
        await floor.store.write(lambda c: update_spec(c, spec_id=spec, changes=changes, now=floor.now))

    async with opened(floor.store) as hall:
        await change(closed)
        for runner in runners:
            await hall.wait(runner)
        jobs = {(await floor.job(spec, anonymous=True)).id for _ in range(2)}
        await anyio.sleep(AWHILE_S)
        await hall.settled()
        assert hall.given == {}
        await change(opened_again)
        await hall.gone(1)
        assert {job.job for job in hall.given.values() if job} == jobs


async def test_a_wait_that_is_given_up_leaves_no_job_claimed(floor: Floor, soak: bool) -> None:
    spec = await floor.spec()
    runner = await floor.runner(spec)
    async with opened(floor.store) as hall:
        for delay in range(40 if soak else 8):
            scope = await hall.wait(runner)
            job = await floor.job(spec)
            await anyio.sleep(delay / 1000)
            scope.cancel()
            await hall.gone()
            found = await find(floor.store, job.id)
            given = hall.given.pop(runner, None)
            assert found.status is (JobStatus.PENDING if given is None else JobStatus.CLAIMED)
            if given is None:
                await hall.wait(runner)
                await hall.gone()
                assert hall.given.pop(runner) is not None


async def test_room_under_a_limit_is_noticed(floor: Floor) -> None:
    spec = await floor.spec()
    first, second = await floor.runner(spec), await floor.runner(spec)
    async with opened(floor.store, ClaimRules(project_concurrency=1)) as hall:
        await hall.wait(first)
        await floor.job(spec)
        await hall.gone()
        running = hall.given[first]
        assert running is not None
        waiting = await floor.job(spec)
        await hall.wait(second)
        await anyio.sleep(AWHILE_S)
        assert second not in hall.given
        holder = LeaseHolder(runner=first, lease=running.lease)
        await floor.store.write(lambda c: move_job(c, running.job, JobEvent.FAIL, now=floor.now, holder=holder))
        await hall.gone()
        found = hall.given[second]
        assert found is not None
        assert found.job == waiting.id


async def test_bursts_of_jobs_of_several_specs_all_find_a_runner(floor: Floor, soak: bool) -> None:
    """Every runner serves two of three specs; with as many runners of each kind as jobs, none may be left."""
    specs = [await floor.spec(f"spec {n}") for n in range(3)]
    each = 20 if soak else 5
    async with opened(floor.store) as hall:
        for n in range(3):
            for _ in range(2 * each):
                await hall.wait(await floor.runner(specs[n], specs[(n + 1) % 3]))
        jobs: list[UUID] = []

        async def submit(spec: UUID, priority: int) -> None:
            jobs.append((await floor.job(spec, priority=priority)).id)

        async with anyio.create_task_group() as tasks:
            for count in range(each):
                for n, spec in enumerate(specs):
                    tasks.start_soon(submit, spec, 100 + (count * 7 + n) % 3)
        await hall.gone(6 * each - len(jobs))
        assert {job.job for job in hall.given.values() if job} == set(jobs)


async def test_two_processes_share_the_work(postgresql: Cluster) -> None:
    with postgresql.database() as url:
        async with await Store.open(url) as one, await Store.open(url) as two:
            await share(one, two)


async def share(one: Store, two: Store) -> None:
    floor = Floor(store=one, now=CLOCK.now() - timedelta(seconds=1))
    await floor.lay()
    spec = await floor.spec()
    async with opened(one) as here, opened(two) as there:
        for hall in (here, there):
            for _ in range(3):
                await hall.wait(await floor.runner(spec))
        # The first is woken in both, and one of them gets it; nobody polls for the rest.
        jobs = {(await floor.job(spec)).id for _ in range(6)}
        await here.gone()
        await there.gone()
        given = [*here.given.values(), *there.given.values()]
        assert sorted(job.job for job in given if job) == sorted(jobs)


async def test_a_notice_that_cannot_be_heeded_leaves_no_job_behind(
    floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def give(self: Dispatcher, spec: UUID, **_: object) -> None:
        failed.append(spec)
        raise KeyError(spec)

    failed = list[UUID]()
    spec = await floor.spec()
    runner, next_one = await floor.runner(spec), await floor.runner(spec)
    async with opened(floor.store) as hall:
        await hall.wait(runner)
        with monkeypatch.context() as broken:
            broken.setattr(Dispatcher, "_give", give)
            first = await floor.job(spec)
            await hall.gone()
        assert failed
        await hall.wait(next_one)
        second = await floor.job(spec)
        await hall.gone()
        assert [job.job for job in hall.given.values() if job] == [first.id, second.id]
