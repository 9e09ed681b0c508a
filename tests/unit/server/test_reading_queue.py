from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import anyio
import pytest

from metalmark.model import StoreAway
from metalmark.server.reading_queue import ReadingQueue
from metalmark.testing.fake_clock import FakeClock

pytestmark = pytest.mark.anyio


def job() -> Any:
    return SimpleNamespace(id=uuid4())


async def test_jobs_are_read_one_after_the_other_and_each_once() -> None:
    queue, jobs, read = ReadingQueue(FakeClock()), [job(), job()], list[Any]()
    at_once = 0

    async def reader(found: Any) -> None:
        nonlocal at_once
        at_once += 1
        assert at_once == 1
        # Told again by the timer while it is being read.
        queue.add(found)
        await anyio.lowlevel.checkpoint()
        at_once -= 1
        read.append(found)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(queue.run, reader)
        for found in jobs:
            queue.add(found)
        await anyio.wait_all_tasks_blocked()
        assert (read, len(queue)) == (jobs, 0)
        later = job()
        queue.add(later)
        await anyio.wait_all_tasks_blocked()
        assert read == [*jobs, later]
        tasks.cancel_scope.cancel()


async def test_what_cannot_be_kept_now_is_tried_again_and_holds_nobody_up() -> None:
    clock = FakeClock()
    queue, first, second, read = ReadingQueue(clock), job(), job(), list[Any]()

    async def reader(found: Any) -> None:
        read.append(found)
        if read.count(first) == 1 and found is first:
            raise StoreAway("the database is away", why="a test says so")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(queue.run, reader)
        queue.add(first)
        queue.add(second)
        for _ in range(3):
            await anyio.wait_all_tasks_blocked()
            clock.advance(1)
        await anyio.wait_all_tasks_blocked()
        assert read == [first, second, first]
        assert len(queue) == 0
        tasks.cancel_scope.cancel()


async def test_an_unforeseen_error_of_one_job_ends_neither_the_queue_nor_is_met_for_ever() -> None:
    clock = FakeClock()
    queue, bad, good, read = ReadingQueue(clock), job(), job(), list[Any]()

    async def reader(found: Any) -> None:
        read.append(found)
        if found is bad:
            raise RecursionError("a document that nobody thought of")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(queue.run, reader)
        queue.add(bad)
        queue.add(good)
        for _ in range(6):
            await anyio.wait_all_tasks_blocked()
            clock.advance(1)
            # The timer finds it in the store again and again.
            queue.add(bad)
        await anyio.wait_all_tasks_blocked()
        assert (read, len(queue)) == ([bad, good, bad, bad], 0)
        later = job()
        queue.add(later)
        await anyio.wait_all_tasks_blocked()
        assert read[-1] is later
        tasks.cancel_scope.cancel()
