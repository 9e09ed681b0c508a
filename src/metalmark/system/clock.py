"""The clock. Other packages read time here, so that tests can tell where it is read."""

from __future__ import annotations

import time

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
