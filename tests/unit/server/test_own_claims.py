from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import anyio
import pytest

from metalmark.model import Capabilities, StoreUnavailable, new_id
from metalmark.server.channel_wire import Gone
from metalmark.server.context import ServerContext
from metalmark.server.job_desk import JobDesk
from metalmark.server.own_claims import OwnClaims
from metalmark.store import ClaimedJob
from metalmark.testing.fake_clock import FakeClock
from metalmark.wire import Wanting

pytestmark = pytest.mark.anyio
RUNNER = new_id()


class Place:
    """What claims go through: a queue of jobs, a desk that takes back, and a runner that may be gone."""

    def __init__(self) -> None:
        self.queue: deque[ClaimedJob | StoreUnavailable] = deque()
        self.arrived = anyio.Event()
        self.asked: list[tuple[UUID, ...] | None] = []
        self.handed_over: list[ClaimedJob] = []
        self.given_back: list[ClaimedJob] = []
        self.fault: BaseException | None = None
        self.refusal: StoreUnavailable | None = None
        self.clock = FakeClock()
        context = SimpleNamespace(dispatcher=self, clock=self.clock)
        self.claims = OwnClaims(
            cast("ServerContext", context), RUNNER, cast("JobDesk", self), self.hand_over, key_digest="k"
        )

    def put(self, thing: ClaimedJob | StoreUnavailable) -> None:
        self.queue.append(thing)
        self.arrived.set()

    async def wait_for_job(self, *, specs: tuple[UUID, ...] | None, **_: Any) -> ClaimedJob:
        self.asked.append(specs)
        while not self.queue:
            self.arrived = anyio.Event()
            await self.arrived.wait()
        found = self.queue.popleft()
        if isinstance(found, StoreUnavailable):
            raise found
        return found

    async def give_back(self, job: ClaimedJob) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.given_back.append(job)

    async def hand_over(self, job: ClaimedJob) -> None:
        if self.fault is not None:
            raise self.fault
        self.handed_over.append(job)


def a_job() -> ClaimedJob:
    return cast("ClaimedJob", SimpleNamespace(job=new_id()))


def wanting(slots: int, *, received: int = 0, specs: tuple[UUID, ...] | None = None) -> Wanting:
    return Wanting(id=1, slots=slots, received=received, specs=specs)


async def test_no_more_jobs_are_claimed_than_are_wanted() -> None:
    place = Place()
    jobs = [a_job() for _ in range(3)]
    for job in jobs:
        place.put(job)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(place.claims.run, Capabilities())
        await anyio.wait_all_tasks_blocked()
        assert place.asked == []
        place.claims.want(wanting(2))
        await anyio.wait_all_tasks_blocked()
        assert (place.handed_over, place.claims.sent) == (jobs[:2], 2)
        # It has heard of one of the two, and has room for one beside that.
        place.claims.want(wanting(1, received=1))
        await anyio.wait_all_tasks_blocked()
        assert place.handed_over == jobs[:2]
        place.claims.want(wanting(1, received=2))
        await anyio.wait_all_tasks_blocked()
        assert (place.handed_over, place.claims.sent) == (jobs, 3)
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("refused", [False, True])
async def test_a_job_that_cannot_be_handed_over_is_given_back(refused: bool) -> None:
    place = Place()
    place.fault = Gone()
    place.refusal = StoreUnavailable("away") if refused else None
    job = a_job()
    place.put(job)
    place.claims.want(wanting(1))
    with pytest.raises(Gone):
        await place.claims.run(Capabilities())
    assert place.given_back == ([] if refused else [job])


async def test_a_wait_goes_on_when_there_is_room_still_and_ends_when_there_is_none_or_for_other_specs() -> None:
    place = Place()
    some = (new_id(),)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(place.claims.run, Capabilities())
        place.claims.want(wanting(1))
        await anyio.wait_all_tasks_blocked()
        place.claims.want(wanting(2))
        await anyio.wait_all_tasks_blocked()
        assert place.asked == [None]
        place.claims.want(wanting(2, specs=some))
        await anyio.wait_all_tasks_blocked()
        assert place.asked == [None, some]
        place.claims.want(wanting(0, specs=some))
        await anyio.wait_all_tasks_blocked()
        place.put(a_job())
        await anyio.wait_all_tasks_blocked()
        assert (place.asked, place.handed_over) == ([None, some], [])
        tasks.cancel_scope.cancel()


async def test_a_store_that_is_away_ends_nothing() -> None:
    place = Place()
    job = a_job()
    place.put(StoreUnavailable("away"))
    place.put(job)
    place.claims.want(wanting(1))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(place.claims.run, Capabilities())
        await anyio.wait_all_tasks_blocked()
        assert place.handed_over == []
        place.clock.advance(1)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert place.handed_over == [job]
