from __future__ import annotations

import time

import pytest

from metalmark.system import monotonic_ns, monotonic_s, realtime_ns, sleep_s


def test_units_agree_with_the_systems_clocks() -> None:
    assert abs(monotonic_ns() / 1e9 - monotonic_s()) < 60
    assert abs(monotonic_s() - time.clock_gettime(time.CLOCK_MONOTONIC)) < 60
    assert abs(realtime_ns() / 1e9 - time.clock_gettime(time.CLOCK_REALTIME)) < 60


@pytest.mark.anyio
async def test_sleeping_takes_at_least_that_long() -> None:
    start = monotonic_ns()
    await sleep_s(0.02)
    assert monotonic_ns() - start >= 19_000_000
