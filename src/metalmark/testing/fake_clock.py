"""A clock that stands still until a test moves it."""

from __future__ import annotations

import heapq
import itertools
from datetime import UTC, datetime, timedelta

import anyio
import anyio.lowlevel

from metalmark.system import Clock


class FakeClock(Clock):
    """A clock that stands still until a test moves it; sleepers wake when it reaches their time.

    Args:
        start: The time of day at first.
    """

    def __init__(self, start: datetime = datetime(2026, 1, 31, 9, 15, tzinfo=UTC)) -> None:
        self._now = start
        self._monotonic_s = 1000.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, anyio.Event]] = []

    def now(self) -> datetime:
        """Return the time of day."""
        return self._now

    def monotonic_s(self) -> float:
        """Return seconds that only ``advance`` moves."""
        return self._monotonic_s

    async def sleep_s(self, seconds: float) -> None:
        """Wait until ``advance`` has gone on by so many seconds."""
        if seconds <= 0:
            await anyio.lowlevel.checkpoint()
            return
        wake = anyio.Event()
        heapq.heappush(self._sleepers, (self._monotonic_s + seconds, next(self._order), wake))
        await wake.wait()

    @property
    def sleeper_count(self) -> int:
        """How many tasks wait for this clock, those that were canceled while waiting included."""
        return len(self._sleepers)

    def advance(self, seconds: float) -> None:
        """Let time go on, and wake whoever waited for it. The woken run when the test next awaits."""
        self._now += timedelta(seconds=seconds)
        self._monotonic_s += seconds
        while self._sleepers and self._sleepers[0][0] <= self._monotonic_s:
            heapq.heappop(self._sleepers)[2].set()

    def step(self, seconds: float) -> None:
        """Set the time of day forward or back, as an administrator or NTP does; deadlines do not move."""
        self._now += timedelta(seconds=seconds)
