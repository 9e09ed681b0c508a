"""Whether the storage answers, asked for those who watch the server, and not more often than it is worth."""

from __future__ import annotations

import anyio

from metalmark.model import StoreAway, StoreUnavailable
from metalmark.store import Blobs
from metalmark.system import Clock

WITHIN_S = 3.0
"""How long the storage is given to answer."""
KEPT_S = 5.0
"""How long an answer counts, so that watchers cost the storage little."""


class Readiness:
    """Asks the storage of one server process."""

    def __init__(self, blobs: Blobs, clock: Clock) -> None:
        self._blobs = blobs
        self._clock = clock
        self._asking = anyio.Lock()
        self._until_s = clock.monotonic_s()
        self._fault: tuple[str, str] | None = None

    async def check(self) -> None:
        """Return when the storage answers, or did a moment ago.

        Raises:
            StoreAway: It does not, or did not.
        """
        async with self._asking:
            if self._clock.monotonic_s() >= self._until_s:
                self._fault = await self._ask()
                self._until_s = self._clock.monotonic_s() + KEPT_S
            if self._fault is not None:
                found, why = self._fault
                raise StoreAway(found, why=why)

    async def _ask(self) -> tuple[str, str] | None:
        try:
            with anyio.fail_after(WITHIN_S):
                await self._blobs.answer()
        except TimeoutError:
            return "the storage does not answer", f"nothing came in {WITHIN_S:g} s"
        except StoreUnavailable as error:
            return error.found, error.why
        return None
