"""Claims that come together, on both engines."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast
from uuid import UUID

import anyio
import pytest
from tests.integration.store.job_floor import Floor

from metalmark.model import StoreBusy
from metalmark.server.claim_batches import ClaimBatches
from metalmark.store import Claimant, ClaimedJob, ClaimRules, NoClaim, Store, remove_runner_spec
from metalmark.system import SystemClock

pytestmark = pytest.mark.anyio
CLOCK = SystemClock()


class CountingStore:
    """A store that counts writes, and fails some."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.writes = 0
        self.busy = False

    async def write(self, work: Callable[[Any], Awaitable[Any]], **options: Any) -> Any:
        self.writes += 1
        if self.busy:
            await anyio.sleep(0.01)
            raise StoreBusy("others write")
        return await self._store.write(work, **options)


@pytest.fixture
async def floor(store: Store) -> Floor:
    made = Floor(store=store, now=CLOCK.now())
    await made.lay()
    return made


async def ask_all(
    batches: ClaimBatches, spec: UUID, runners: list[UUID], *, times: int = 1
) -> dict[UUID, list[ClaimedJob | NoClaim | Exception]]:
    """Have runners claim at the same time, each again as soon as it was answered."""
    found: dict[UUID, list[ClaimedJob | NoClaim | Exception]] = {runner: [] for runner in runners}

    async def ask(runner: UUID) -> None:
        for _ in range(times):
            try:
                found[runner].append(await batches.claim(Claimant(runner=runner, specs=frozenset({spec}))))
            except StoreBusy as error:
                found[runner].append(error)

    async with anyio.create_task_group() as tasks:
        for runner in runners:
            tasks.start_soon(ask, runner)
    return found


async def test_those_who_ask_together_are_served_together(floor: Floor) -> None:
    spec = await floor.spec()
    runners = [await floor.runner(spec) for _ in range(6)]
    jobs = {(await floor.job(spec)).id for _ in range(30)}
    store = CountingStore(floor.store)
    found = await ask_all(ClaimBatches(cast("Store", store), CLOCK, ClaimRules()), spec, runners, times=5)
    claimed = [job for each in found.values() for job in each if isinstance(job, ClaimedJob)]
    assert {job.job for job in claimed} == jobs
    assert len(claimed) == len(jobs)
    assert all(job.runner == runner for runner in runners for job in found[runner] if isinstance(job, ClaimedJob))
    # Five writes of six claims each: those who were answered come along with who leads next.
    assert store.writes <= 7


async def test_with_limits_on_jobs_at_once_everyone_claims_alone(floor: Floor) -> None:
    spec = await floor.spec()
    runners = [await floor.runner(spec) for _ in range(3)]
    for _ in range(3):
        await floor.job(spec)
    batches = ClaimBatches(floor.store, CLOCK, ClaimRules(project_concurrency=2))
    found = await ask_all(batches, spec, runners)
    assert sum(isinstance(each[0], ClaimedJob) for each in found.values()) == 2


async def test_one_that_lost_its_spec_does_not_take_the_others_along(floor: Floor) -> None:
    spec = await floor.spec()
    runners = [await floor.runner(spec) for _ in range(3)]
    await floor.store.write(lambda c: remove_runner_spec(c, runner_id=runners[1], spec_id=spec))
    for _ in range(3):
        await floor.job(spec)
    found = await ask_all(ClaimBatches(floor.store, CLOCK, ClaimRules()), spec, runners)
    assert found[runners[1]] == [NoClaim.UNFIT]
    assert all(isinstance(found[runner][0], ClaimedJob) for runner in (runners[0], runners[2]))


async def test_everyone_is_told_that_the_store_was_busy_and_may_ask_again(floor: Floor) -> None:
    spec = await floor.spec()
    runners = [await floor.runner(spec) for _ in range(3)]
    await floor.job(spec)
    store = CountingStore(floor.store)
    batches = ClaimBatches(cast("Store", store), CLOCK, ClaimRules())
    store.busy = True
    found = await ask_all(batches, spec, runners)
    assert all(isinstance(each[0], StoreBusy) for each in found.values())
    store.busy = False
    again = await ask_all(batches, spec, runners)
    assert sum(isinstance(each[0], ClaimedJob) for each in again.values()) == 1
