from __future__ import annotations

from datetime import timedelta

import anyio
import pytest

from metalmark.testing.fake_clock import FakeClock

pytestmark = pytest.mark.anyio


async def test_sleepers_wake_when_their_time_has_come_and_not_before() -> None:
    clock = FakeClock()
    woken = []

    async def sleep(seconds: float) -> None:
        await clock.sleep_s(seconds)
        woken.append(seconds)

    async with anyio.create_task_group() as tasks:
        for seconds in (5, 1, 3):
            tasks.start_soon(sleep, seconds)
        await anyio.wait_all_tasks_blocked()
        clock.advance(2.9)
        await anyio.wait_all_tasks_blocked()
        assert woken == [1]
        clock.advance(5)
        await anyio.wait_all_tasks_blocked()
    assert woken == [1, 3, 5]
    assert clock.sleeper_count == 0


async def test_a_step_moves_the_time_of_day_and_no_deadline() -> None:
    clock = FakeClock()
    before, deadline = clock.now(), clock.monotonic_s()
    clock.step(-60)
    assert clock.now() == before - timedelta(seconds=60)
    assert clock.monotonic_s() == deadline
    await clock.sleep_s(0)
