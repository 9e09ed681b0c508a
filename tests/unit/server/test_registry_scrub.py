"""How fast a scrub reads; what it finds is tested with real servers."""

from __future__ import annotations

import pytest

from metalmark.server.registry_scrub import ReadingPace
from metalmark.testing.fake_clock import FakeClock

pytestmark = pytest.mark.anyio


class Steps(FakeClock):
    """A clock on which every sleep is over at once, and is noted."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    async def sleep_s(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.advance(max(0.0, seconds))


async def test_it_waits_as_long_as_the_bytes_take() -> None:
    clock = Steps()
    pace = ReadingPace(clock, 1000)
    for size in (500, 1000, 0):
        await pace.spend(size)
    assert clock.slept == pytest.approx([0.5, 1.0, 0.0])


async def test_what_reading_itself_takes_is_counted() -> None:
    clock = Steps()
    pace = ReadingPace(clock, 1000)
    await pace.spend(1000)
    # Reading the next 1000 bytes took longer than they may.
    clock.advance(3)
    await pace.spend(1000)
    # And that gives nothing to be faster with afterwards.
    await pace.spend(2000)
    assert clock.slept == pytest.approx([1.0, 1.0, 2.0])
