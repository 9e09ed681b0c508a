from __future__ import annotations

import time
from datetime import timedelta

import pytest

from metalmark.system import SystemClock, monotonic_ns, monotonic_s, realtime_ns, sleep_s


def test_units_agree_with_the_systems_clocks() -> None:
    assert abs(monotonic_ns() / 1e9 - monotonic_s()) < 60
    assert abs(monotonic_s() - time.clock_gettime(time.CLOCK_MONOTONIC)) < 60
    assert abs(realtime_ns() / 1e9 - time.clock_gettime(time.CLOCK_REALTIME)) < 60


@pytest.mark.anyio
async def test_sleeping_takes_at_least_that_long() -> None:
    start = monotonic_ns()
    await sleep_s(0.02)
    assert monotonic_ns() - start >= 19_000_000


@pytest.mark.anyio
async def test_the_machines_clock_is_aware_and_waits_no_negative_time() -> None:
    clock = SystemClock()
    assert clock.now().utcoffset() == timedelta()
    before = clock.monotonic_s()
    await clock.sleep_s(-1)
    await clock.sleep_s(0.01)
    assert clock.monotonic_s() - before >= 0.01
