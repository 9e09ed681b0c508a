from __future__ import annotations

import pytest

from metalmark.model import TooManyRequests
from metalmark.server import rate_limits
from metalmark.server.config import LimitsSection
from metalmark.server.rate_limits import Limited, RateLimits
from metalmark.testing.fake_clock import FakeClock


def test_a_minutes_worth_goes_at_once_and_then_comes_back_steadily() -> None:
    clock = FakeClock()
    limits = RateLimits(LimitsSection(runs=6), clock)
    for _ in range(6):
        limits.spend(Limited.RUNS, "user 1")
    with pytest.raises(TooManyRequests) as refused:
        limits.spend(Limited.RUNS, "user 1")
    assert refused.value.retry_after_s == pytest.approx(10)
    clock.advance(9.9)
    with pytest.raises(TooManyRequests):
        limits.spend(Limited.RUNS, "user 1")
    clock.advance(0.2)
    limits.spend(Limited.RUNS, "user 1")


def test_callers_and_things_are_counted_apart() -> None:
    limits = RateLimits(LimitsSection(runs=1, mails=1), FakeClock())
    limits.spend(Limited.RUNS, "a")
    limits.spend(Limited.RUNS, "b")
    limits.spend(Limited.MAILS, "a")
    with pytest.raises(TooManyRequests):
        limits.spend(Limited.RUNS, "a")


def test_zero_is_no_limit() -> None:
    limits = RateLimits(LimitsSection(runs=0), FakeClock())
    for _ in range(1000):
        limits.spend(Limited.RUNS, "a")


def test_a_refusal_costs_nothing() -> None:
    clock = FakeClock()
    limits = RateLimits(LimitsSection(mails=1), clock)
    limits.spend(Limited.MAILS, "a")
    for _ in range(59):
        clock.advance(1)
        with pytest.raises(TooManyRequests):
            limits.spend(Limited.MAILS, "a")
    clock.advance(1)
    limits.spend(Limited.MAILS, "a")


def test_a_step_of_the_time_of_day_gives_nothing() -> None:
    clock = FakeClock()
    limits = RateLimits(LimitsSection(mails=1), clock)
    limits.spend(Limited.MAILS, "a")
    clock.step(3600)
    with pytest.raises(TooManyRequests):
        limits.spend(Limited.MAILS, "a")


def test_very_many_callers_take_no_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "_MAX_CALLERS", 3)
    limits = RateLimits(LimitsSection(runs=1), FakeClock())
    for number in range(10):
        limits.spend(Limited.RUNS, str(number))
    assert len(limits._buckets) == 3
