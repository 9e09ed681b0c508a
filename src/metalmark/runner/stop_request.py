"""A request to stop a run: once is polite, twice is by force."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from signal import SIGINT

import anyio


class Urgency(IntEnum):
    """How a run is to stop."""

    NONE = 0
    POLITE = 1
    """End the benchmark, collect what there is, clean up."""
    FORCED = 2
    """Only clean up."""


class StopRequest:
    """Collects requests to stop and hands them to whoever can act. Belongs to one event loop and its thread."""

    def __init__(self) -> None:
        self.urgency = Urgency.NONE
        self.signal = int(SIGINT)
        """The first signal that asked; the exit code is 128 and this."""
        self._listeners: list[tuple[Urgency, Callable[[], None]]] = []

    @property
    def requested(self) -> bool:
        """Whether anybody asked."""
        return self.urgency > Urgency.NONE

    def request(self, signal: int = int(SIGINT)) -> None:
        """Ask to stop; a second call forces."""
        if self.urgency is Urgency.NONE:
            self.signal = signal
        self.urgency = Urgency(min(self.urgency + 1, Urgency.FORCED))
        for wanted, act in list(self._listeners):
            if self.urgency >= wanted:
                act()

    @contextmanager
    def cancelling(self, scope: anyio.CancelScope, *, at: Urgency) -> Iterator[None]:
        """Cancel a scope when a stop of that urgency is asked for, at once when it was before."""
        listener = (at, scope.cancel)
        self._listeners.append(listener)
        try:
            if self.urgency >= at:
                scope.cancel()
            yield
        finally:
            self._listeners.remove(listener)
