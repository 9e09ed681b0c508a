"""Signals that stop a command, handed to its request to stop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from signal import SIG_IGN, SIGHUP, SIGINT, SIGTERM, Signals, getsignal

import anyio

from metalmark.runner import StopRequest


def heeded() -> tuple[Signals, ...]:
    """Return the signals that stop a command. One that was ignored from the start, as nohup does, stays ignored."""
    return tuple(number for number in (SIGINT, SIGTERM, SIGHUP) if getsignal(number) is not SIG_IGN)


@asynccontextmanager
async def heeding_signals(stop: StopRequest, *, first: Callable[[], None] = lambda: None) -> AsyncIterator[None]:
    """Turn each signal into a request to stop, for as long as the context lasts.

    Args:
        stop: Gets the requests.
        first: Called at the first of them.
    """
    async with anyio.create_task_group() as tasks:
        ready = anyio.Event()
        tasks.start_soon(_listen, stop, first, ready)
        await ready.wait()
        yield
        tasks.cancel_scope.cancel()


async def _listen(stop: StopRequest, first: Callable[[], None], ready: anyio.Event) -> None:
    with anyio.open_signal_receiver(*heeded()) as signals:
        ready.set()
        async for number in signals:
            if not stop.requested:
                first()
            stop.request(int(number))
