"""The one door through which blocking work leaves the event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import anyio.to_thread

T = TypeVar("T")
Args = TypeVarTuple("Args")


async def in_thread(function: Callable[[*Args], T], *args: *Args) -> T:
    """Run a blocking function in a worker thread and return what it returns.

    Cancellation waits for the function: it may hold a lock or a half-written file. Functions that can take long
    take a deadline or a stop flag of their own.
    """
    return await anyio.to_thread.run_sync(function, *args)
