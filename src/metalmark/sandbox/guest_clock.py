"""Does a guest's clock run at the right rate? Two readings, each beside the host's clock, tell.

Under emulation a wrong rate of the time stamp counter silently falsifies every time that a benchmark takes. The timer
that ends its sleeps is another counter, which a guest's kernel measures at its start, in a tenth of a second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from metalmark.model import BadBoot

TOLERANCE: Final = 0.02
"""Largest deviation of the rate that passes for right."""
_LEAST_NS: Final = 100_000_000
_TIMER_HZ: Final = 62_500_000
"""QEMU's local timer counts nanoseconds, and Linux makes it count every sixteenth."""
_TIMER_FACTOR: Final = 2.0


@dataclass(frozen=True, kw_only=True)
class ClockReading:
    """The guest's monotonic clock, and the host's right before the question and right after the answer."""

    before_ns: int
    guest_ns: int
    after_ns: int

    @property
    def host_ns(self) -> int:
        """The host's clock at about the moment of the reading."""
        return (self.before_ns + self.after_ns) // 2

    @property
    def uncertainty_ns(self) -> int:
        """How far off `host_ns` can be, either way."""
        return (self.after_ns - self.before_ns) // 2


def clock_rate(first: ClockReading, last: ClockReading) -> float | None:
    """Return guest seconds a host second; None when the readings are too close together to tell within tolerance."""
    elapsed_ns = last.host_ns - first.host_ns
    uncertainty_ns = first.uncertainty_ns + last.uncertainty_ns
    if elapsed_ns < _LEAST_NS or uncertainty_ns > elapsed_ns * TOLERANCE:
        return None
    return (last.guest_ns - first.guest_ns) / elapsed_ns


def clock_warning(rate: float | None) -> str:
    """Return the sentence for a result; empty when there is nothing wrong as far as one can tell."""
    if rate is None or abs(rate - 1) <= TOLERANCE:
        return ""
    return f"the guest's clock ran at {rate:.3f} times the right rate: times that the benchmark took itself are wrong"


def timer_fault(timer_hz: int) -> BadBoot | None:
    """Return why an emulated x86-64 guest is of no use: by what it measured of its timer, its sleeps never end.

    A host that stands still meanwhile falsifies the measurement, and a large one overflows in the kernel.

    Args:
        timer_hz: What the guest says of it; 0: it has none that it had to measure.
    """
    rate = timer_hz / _TIMER_HZ
    if not timer_hz or 1 / _TIMER_FACTOR <= rate <= _TIMER_FACTOR:
        return None
    return BadBoot(
        f"the guest took its timer for {rate:.2g} times as fast as it is",
        why="the host stood still while the guest measured it; whatever sleeps in there would not wake in time",
        hint="run it again, on a host with less to do",
    )
