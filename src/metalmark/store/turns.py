"""Who gets a connection next: whoever has waited longest."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from metalmark.model import StoreBusy


class Turns:
    """As many places as there are connections, given out in the order they were asked for.

    The pool itself gives a connection to whoever happens to ask when it comes back. Under load that is who has just had
    it, and the others wait until they are out of time.

    Args:
        places: How many may have one at the same time.
        wait_s: How long one may wait.
    """

    def __init__(self, places: int, wait_s: float) -> None:
        self._free = anyio.Semaphore(places)
        self._wait_s = wait_s

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Have a place.

        Raises:
            StoreBusy: None became free in time.
        """
        with anyio.move_on_after(self._wait_s) as waiting:
            await self._free.acquire()
        if waiting.cancelled_caught:
            raise StoreBusy("no connection to the database became free in time")
        try:
            yield
        finally:
            self._free.release()
