"""The clock. Other packages read time here, so that tests can tell where it is read."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol

import anyio


def monotonic_ns() -> int:
    """Nanoseconds of CLOCK_MONOTONIC."""
    return time.monotonic_ns()


def monotonic_s() -> float:
    """Seconds of CLOCK_MONOTONIC, for deadlines."""
    return time.monotonic()


def realtime_ns() -> int:
    """Nanoseconds since the epoch."""
    return time.time_ns()


async def sleep_s(seconds: float) -> None:
    """Wait on the event loop. For back-off and sampling; wait for an event where there is one."""
    await anyio.sleep(seconds)


class Clock(Protocol):
    """Where a daemon reads time and waits for it, so that tests can hold and step it."""

    def now(self) -> datetime:
        """Return the time of day as an aware UTC instant; it may step in either direction."""

    def monotonic_s(self) -> float:
        """Return seconds of a clock that never steps, for deadlines and durations."""

    async def sleep_s(self, seconds: float) -> None:
        """Wait until the clock that never steps has gone on by so many seconds; at once when not positive."""


class SystemClock(Clock):
    """The clock of the machine."""

    def now(self) -> datetime:
        """Return the time of day as an aware UTC instant."""
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        """Return seconds of CLOCK_MONOTONIC."""
        return time.monotonic()

    async def sleep_s(self, seconds: float) -> None:
        """Wait on the event loop."""
        await anyio.sleep(max(0.0, seconds))
