"""The life of jobs, played at random against a model: two servers, several runners, and all that goes wrong.

Who of several that claim at once gets which job is up to chance, and what is drawn next must not depend on it: jobs and
claims are drawn as numbers, of which the list at hand makes its own.

The model is told what was done, works out by the documented table what has to have become of every job, and is compared
with the store after every step. At the end time goes on until nothing can happen any more, and every job has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import anyio
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.integration.server.job_ledger import check_ledger
from tests.integration.server.modeled_job import Modeled
from tests.integration.store.job_floor import Floor

from metalmark.model import (
    Capabilities,
    Effect,
    JobEvent,
    JobLimits,
    JobStatus,
    expiry_event,
    time_limit,
    transition,
)
from metalmark.server.deadlines import Deadlines
from metalmark.server.dispatcher import Dispatcher
from metalmark.server.pulse import Pulse
from metalmark.store import (
    ClaimedJob,
    ClaimRules,
    LeaseHolder,
    Moved,
    Store,
    StoredOutput,
    find_job,
    list_events,
    move_job,
    record_phase,
)
from metalmark.testing.fake_clock import FakeClock

LIMITS = JobLimits(heartbeat_timeout_s=90, grace_s=60, start_allowance_s=600, max_pending_s=5000)
TIMEOUT_S = 30
ABLE = Capabilities(sandboxes=frozenset({"firecracker"}))
OUTPUT = StoredOutput(key="k", size_bytes=1, digest="sha256:" + "0" * 64)
RUNNER_EVENTS = [
    JobEvent.START,
    JobEvent.HEARTBEAT,
    JobEvent.HEARTBEAT,
    JobEvent.COMPLETE,
    JobEvent.FAIL,
    JobEvent.RUNNER_CANCEL,
]


ANY_OF_MANY = st.integers(0, 999)
"""Which of a list, counted from its end and around it, whose length is not the same each time."""


class Impatient(FakeClock):
    """A clock on which nobody sleeps for long: claims that got in each other's way are tried again in real time."""

    async def sleep_s(self, seconds: float) -> None:
        await anyio.sleep(min(seconds, 0.002))


class World:
    """Two servers on one database, in an event loop of another thread."""

    def __init__(self, url: str, portal: BlockingPortal) -> None:
        self.url = url
        self.portal = portal
        self.clock = Impatient()
        self.stores: list[Store] = []
        self.floor: Floor
        self.specs: list[UUID] = []
        self.runners: list[tuple[UUID, frozenset[UUID]]] = []
        self.stack = AsyncExitStack()
        self.steps = 0

    async def open(self) -> None:
        self.stores = [await self.stack.enter_async_context(await Store.open(self.url))]
        if self.url.startswith("postgresql"):
            self.stores.append(await self.stack.enter_async_context(await Store.open(self.url)))
        self.start_servers()

    def start_servers(self) -> None:
        stores = [self.stores[0], self.stores[-1]]
        rules = ClaimRules(limits=LIMITS)
        self.dispatchers = [Dispatcher(store, self.clock, rules) for store in stores]
        self.deadlines = [Deadlines(store, self.clock, LIMITS) for store in stores]

    async def lay(self) -> None:
        """Make specs and runners anew, so that nothing is left over from what was played before."""
        self.specs = [await self.floor.spec(f"spec {n}") for n in range(2)]
        kinds = [self.specs[:1], self.specs[1:], self.specs]
        self.runners = [(await self.floor.runner(*specs), frozenset(specs)) for specs in kinds]

    async def live(self, opened: anyio.Event, stop: anyio.Event, failed: list[BaseException]) -> None:
        """Hold the stores open in one task, which has to be the one that closes them."""
        try:
            async with self.stack:
                await self.open()
                self.floor = Floor(store=self.stores[0], now=self.clock.now())
                await self.floor.lay()
                opened.set()
                await stop.wait()
        except BaseException as error:
            failed.append(error)
            opened.set()
            raise


WORLD: list[World] = []


class JobLife(RuleBasedStateMachine):
    """What may happen, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.world = WORLD[-1]
        self.jobs: dict[UUID, Modeled] = {}
        self.claims: list[tuple[UUID, UUID, int]] = []
        self.step_behind = [timedelta(), timedelta()]

    def call(self, function: Any, *values: Any) -> Any:
        return self.world.portal.call(function, *values)

    @property
    def now(self) -> datetime:
        return self.world.clock.now()

    def claim_number(self, which: int, suits: Callable[[Modeled, int], bool]) -> tuple[UUID, UUID, int]:
        """Return a claim that suits as far as there is any: what matters most happens too rarely by itself."""
        suitable = [claim for claim in self.claims if suits(self.jobs[claim[0]], claim[2])] or self.claims
        return suitable[-1 - which % len(suitable)]

    @initialize()
    def start(self) -> None:
        self.world.start_servers()
        self.call(self.world.lay)

    @rule(spec=st.integers(0, 1), priority=st.sampled_from([0, 100, 200]), retry_allowed=st.booleans())
    def submit(self, spec: int, priority: int, retry_allowed: bool) -> None:
        expires = self.now + timedelta(seconds=LIMITS.max_pending_s)

        async def work() -> Any:
            return await self.world.floor.job(
                self.world.specs[spec],
                now=self.now,
                priority=priority,
                retry_allowed=retry_allowed,
                timeout_s=TIMEOUT_S,
                pending_expires=expires,
            )

        job = self.call(work)
        self.jobs[job.id] = Modeled(id=job.id, spec=job.spec, retry_allowed=retry_allowed, pending_expires=expires)

    async def _claim(self, runner: int, server: int) -> ClaimedJob | None:
        return await self.world.dispatchers[server].wait_for_job(
            runner=self.world.runners[runner][0], capabilities=ABLE, deadline_s=0
        )

    def _claimed(self, claimed: ClaimedJob) -> None:
        job = self.jobs[claimed.job]
        assert job.apply(JobEvent.CLAIM) is Effect.MOVE
        job.lease += 1
        assert (claimed.lease, claimed.spec.id) == (job.lease, job.spec)
        job.runner = claimed.runner
        job.lease_expires = self.now + timedelta(seconds=LIMITS.heartbeat_timeout_s)
        job.limit_expires = self.now + time_limit(LIMITS, timeout_s=TIMEOUT_S, iterations=1)
        self.claims.append((claimed.job, claimed.runner, claimed.lease))

    @rule(runner=st.integers(0, 2), server=st.integers(0, 1))
    def claim(self, runner: int, server: int) -> None:
        served = self.world.runners[runner][1]
        waiting = [job for job in self.jobs.values() if job.status is JobStatus.PENDING and job.spec in served]
        claimed = self.call(self._claim, runner, server)
        assert (claimed is not None) == bool(waiting)
        if claimed is not None:
            self._claimed(claimed)

    @rule()
    def all_claim_at_once(self) -> None:
        found: list[ClaimedJob] = []

        async def one(runner: int, server: int) -> None:
            claimed = await self._claim(runner, server)
            if claimed is not None:
                found.append(claimed)

        async def work() -> None:
            async with anyio.create_task_group() as tasks:
                for runner in range(3):
                    for server in range(2):
                        tasks.start_soon(one, runner, server)

        self.call(work)
        assert len({claimed.job for claimed in found}) == len(found)
        for claimed in found:
            self._claimed(claimed)

    def _said(self, claim: tuple[UUID, UUID, int], event: JobEvent, server: int, *, names_lease: bool) -> Moved:
        job, runner, lease = claim
        holder = LeaseHolder(runner=runner, lease=lease if names_lease else None)
        expires = self.now + timedelta(seconds=LIMITS.heartbeat_timeout_s)
        output = OUTPUT if event is JobEvent.COMPLETE else None
        store = self.world.stores[-server]

        async def work() -> Moved | None:
            return await store.write(
                lambda c: move_job(c, job, event, now=self.now, holder=holder, lease_expires=expires, output=output)
            )

        moved = self.call(work)
        assert moved is not None
        modeled = self.jobs[job]
        held = modeled.runner == runner and (not names_lease or modeled.lease == lease)
        assert moved.foreign is not held
        if held:
            effect = modeled.apply(event)
            assert moved.effect is effect
            if event in (JobEvent.START, JobEvent.HEARTBEAT) and effect in (Effect.MOVE, Effect.TOUCH):
                modeled.lease_expires = expires
        return moved

    @precondition(lambda self: self.claims)
    @rule(
        which=ANY_OF_MANY,
        lost=st.booleans(),
        event=st.sampled_from(RUNNER_EVENTS),
        server=st.integers(0, 1),
        names_lease=st.booleans(),
        twice=st.booleans(),
    )
    def runner_says(self, which: int, lost: bool, event: JobEvent, server: int, names_lease: bool, twice: bool) -> None:
        """A runner speaks of any job that it was ever given: in time, late, twice, or after it lost the lease."""
        claim = self.claim_number(which, lambda job, lease: (job.lease == lease) is not lost)
        self._said(claim, event, server, names_lease=names_lease)
        if twice:
            again = self._said(claim, event, 1 - server, names_lease=names_lease)
            assert again.effect is not Effect.MOVE

    @precondition(lambda self: self.claims)
    @rule(which=ANY_OF_MANY, phase=st.sampled_from(["pull", "exec"]))
    def runner_names_its_phase(self, which: int, phase: str) -> None:
        job, runner, lease = self.claim_number(which, lambda job, lease: job.lease == lease and job.status.is_active)
        holder = LeaseHolder(runner=runner, lease=lease)
        began = phase == "exec"

        async def work() -> bool:
            return await self.world.stores[0].write(
                lambda c: record_phase(c, job, holder=holder, phase=phase, began=began, now=self.now)
            )

        modeled = self.jobs[job]
        held = modeled.runner == runner and modeled.lease == lease and modeled.status.is_active
        assert self.call(work) is held
        if held:
            modeled.phase = phase
            modeled.began = modeled.began or began

    @precondition(lambda self: self.claims)
    @rule(which=ANY_OF_MANY, in_vain=st.booleans())
    def runner_meets_a_fault_that_is_not_the_benchmarks(self, which: int, in_vain: bool) -> None:
        job, runner, lease = self.claim_number(
            which,
            lambda job, _: in_vain is not (job.status.is_active and job.retries_left > 0 and not job.may_have_begun),
        )
        holder = LeaseHolder(runner=runner, lease=lease)

        async def work() -> Moved | None:
            return await self.world.stores[0].write(
                lambda c: move_job(c, job, JobEvent.REQUEUE, now=self.now, holder=holder, unless_began=True)
            )

        moved = self.call(work)
        modeled = self.jobs[job]
        held = modeled.runner == runner and modeled.lease == lease
        if held and modeled.status.is_active and not modeled.may_have_begun and modeled.retries_left:
            assert moved.effect is modeled.apply(JobEvent.REQUEUE)
        else:
            assert moved.effect is Effect.KEEP

    @precondition(lambda self: self.jobs)
    @rule(
        which=ANY_OF_MANY,
        event=st.sampled_from([JobEvent.CANCEL, JobEvent.PROCESS, JobEvent.PROCESS, JobEvent.PROCESS_FAIL]),
    )
    def server_or_user_acts(self, which: int, event: JobEvent) -> None:
        job = list(self.jobs)[-1 - which % len(self.jobs)]

        async def work() -> Moved | None:
            return await self.world.stores[0].write(lambda c: move_job(c, job, event, now=self.now))

        assert self.call(work).effect is self.jobs[job].apply(event)

    @rule(seconds=st.sampled_from([1, 10, 45, 89, 90, 91, 400, 1000]), server=st.integers(0, 1))
    def time_passes(self, seconds: int, server: int) -> None:
        self.world.clock.advance(seconds)
        self._timer(server)

    def _timer(self, server: int) -> None:
        deadlines = self.world.deadlines[server]

        async def work() -> None:
            # A process that was not stopped.
            deadlines._pulse = Pulse(self.world.clock)
            await deadlines._heed_clock()
            await deadlines._do_what_is_due()

        self.call(work)
        step = self.step_behind[server]
        self.step_behind[server] = timedelta()
        if step:
            self._renewed()
            if step > timedelta():
                for job in self.jobs.values():
                    if job.limit_expires is not None:
                        job.limit_expires += step
        for job in self.jobs.values():
            self._expire(job)

    def _renewed(self) -> None:
        fresh = self.now + timedelta(seconds=LIMITS.heartbeat_timeout_s)
        for job in self.jobs.values():
            if job.lease_expires is not None and not self.now < job.lease_expires <= fresh:
                job.lease_expires = fresh

    def _expire(self, job: Modeled) -> None:
        # A job that goes back to the queue may have waited too long there already.
        for _ in range(2):
            if job.status is JobStatus.PENDING and job.pending_expires <= self.now:
                job.apply(JobEvent.PENDING_EXPIRE)
            elif job.limit_expires is not None and job.limit_expires <= self.now:
                job.apply(JobEvent.LIMIT_EXPIRE)
            elif job.lease_expires is not None and job.lease_expires <= self.now:
                event, _ = expiry_event(
                    now=self.now,
                    limit_expires=job.limit_expires,
                    began=job.may_have_begun,
                    retries_left=job.retries_left,
                )
                job.apply(event)

    @rule(seconds=st.sampled_from([-5000, -100, -30, 30, 100, 2000]))
    def clock_is_set(self, seconds: int) -> None:
        """Both servers notice by their timers, each at its next turn."""
        self.world.clock.step(seconds)
        self.step_behind = [step + timedelta(seconds=seconds) for step in self.step_behind]

    @rule()
    def servers_restart(self) -> None:
        """All that is not in the database is gone; a starting server lets leases begin anew."""

        async def work() -> None:
            self.world.start_servers()
            for deadlines in self.world.deadlines:
                await deadlines._renew()

        self.call(work)
        self.step_behind = [timedelta(), timedelta()]
        self._renewed()

    @invariant()
    def store_is_as_the_model(self) -> None:
        self.world.steps += 1

        async def read() -> list[tuple[Any, ...]]:
            found = []
            async with self.world.stores[-1].read() as connection:
                for job in self.jobs:
                    record = await find_job(connection, job)
                    assert record is not None
                    found.append(
                        (record.id, record.status, record.lease, record.runner, record.lease_expires, record.retries)
                    )
            return found

        for row in self.call(read) if self.jobs else ():
            job = self.jobs[row[0]]
            assert row == (job.id, job.status, job.lease, job.runner, job.lease_expires, job.retries)

    def teardown(self) -> None:
        # A clock that was set back again and again makes waiting jobs wait as much longer.
        for _ in range(100):
            if all(job.status.is_final for job in self.jobs.values()):
                break
            self.world.clock.advance(6000)
            for server in (0, 1):
                self._timer(server)
            for job in self.jobs.values():
                if job.status is JobStatus.COMPLETED:
                    self._process(job)
        self.store_is_as_the_model()
        for job in self.jobs.values():
            assert job.status.is_final, f"{job} has not ended"
            self._check_history(job)

    def _process(self, job: Modeled) -> None:
        async def work() -> None:
            await self.world.stores[0].write(lambda c: move_job(c, job.id, JobEvent.PROCESS, now=self.now))

        self.call(work)
        job.apply(JobEvent.PROCESS)

    def _check_history(self, job: Modeled) -> None:
        async def read() -> Any:
            async with self.world.stores[0].read() as connection:
                return await list_events(connection, job.id)

        events = self.call(read)
        assert [event.after for event in events] == job.history[1:]
        before = JobStatus.PENDING
        for event in events:
            assert event.before is before
            step = transition(before, event.event)
            assert (step.effect, step.target) == (Effect.MOVE, event.after)
            before = event.after


@contextmanager
def world(url: str) -> Iterator[World]:
    with start_blocking_portal() as portal:
        made = World(url, portal)
        opened, stop, failed = anyio.Event(), anyio.Event(), list[BaseException]()
        future = portal.start_task_soon(made.live, opened, stop, failed)
        portal.call(opened.wait)
        if failed:
            raise failed[0]
        WORLD.append(made)
        try:
            yield made
        finally:
            WORLD.pop()
            portal.call(stop.set)
            future.result(30)


@pytest.mark.timeout(3600)
def test_no_job_is_lost_or_finished_twice(database_url: str, soak: bool) -> None:
    # Nearly all examples have fifty steps, so that these are more than ten thousand on each of the two engines.
    examples = 240 if soak else 6
    with world(database_url) as played:
        run_state_machine_as_test(
            JobLife,
            settings=settings(
                max_examples=examples,
                stateful_step_count=50,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
        events = played.portal.call(check_ledger, played.stores[0])
        print(f"{played.steps} steps, {events} changes of a job's state")  # noqa: T201 - for those who run it for long
        assert not soak or (played.steps >= 10_000 and events > 1_000)
