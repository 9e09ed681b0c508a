"""Progress of long work, as events that a caller shows or ignores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far one piece of work is. The same ``task`` comes again with higher numbers until it is ``finished``."""

    task: str
    """What is being done, for people: ``pull sha256:0123… (layer 2 of 5)``."""
    done: int = 0
    total: int | None = None
    unit: str = "bytes"
    finished: bool = False


ProgressSink = Callable[[Progress], None]
"""Takes progress events. Called on the event loop or from a worker thread; must be quick and must not raise."""


def ignore_progress(_event: Progress) -> None:
    """Show nothing."""
