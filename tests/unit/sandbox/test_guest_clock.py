"""Guest clocks that run wrong."""

from __future__ import annotations

import pytest

from metalmark.sandbox.guest_clock import ClockReading, clock_rate, clock_warning, timer_fault


def reading(host_s: float, guest_s: float, *, round_trip_s: float = 0.002) -> ClockReading:
    half = int(round_trip_s * 5e8)
    return ClockReading(
        before_ns=int(host_s * 1e9) - half, guest_ns=int(guest_s * 1e9), after_ns=int(host_s * 1e9) + half
    )


def test_right_rate_has_no_warning() -> None:
    assert clock_warning(clock_rate(reading(10, 1), reading(12, 3.001))) == ""


@pytest.mark.parametrize("rate", [0.95, 1.05, 4.0])
def test_wrong_rate_is_told(rate: float) -> None:
    found = clock_rate(reading(10, 1), reading(12, 1 + 2 * rate))
    assert found == pytest.approx(rate)
    assert f"{rate:.3f}" in clock_warning(found)


def test_readings_too_close_or_too_uncertain_tell_nothing() -> None:
    assert clock_rate(reading(10, 1), reading(10.05, 1.2)) is None
    assert clock_rate(reading(10, 1), reading(11, 2, round_trip_s=0.1)) is None
    assert clock_warning(None) == ""


@pytest.mark.parametrize("timer_hz", [0, 62_500_000, 58_000_000, 70_000_000])
def test_a_timer_that_is_nearly_right_is_no_fault(timer_hz: int) -> None:
    assert timer_fault(timer_hz) is None


@pytest.mark.parametrize("timer_hz", [1, 12_000_000, 254_817_000, 999_999_999])
def test_a_timer_that_is_far_off_is(timer_hz: int) -> None:
    fault = timer_fault(timer_hz)
    assert fault is not None
    assert f"{timer_hz / 62_500_000:.2g} times" in str(fault)
