"""Times the phases of a run and holds each to its deadline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import anyio

from metalmark.model import Phase, PhaseResult, PhaseSpan, PhaseTimeout
from metalmark.system import monotonic_ns


@dataclass(frozen=True, kw_only=True)
class Deadlines:
    """The longest that each phase may take. Sandboxes have tighter ones of their own for their boot."""

    pull_s: float = 3600.0
    rootfs_s: float = 1800.0
    start_s: float = 180.0
    """Spawn, kernel and agent together."""
    launch_s: float = 180.0
    """From the request to run the command until its program runs, which is when its time limit begins to count."""
    collect_s: float = 60.0
    kill_s: float = 5.0
    """How long a killed command may take to be gone before the whole box is ended."""


class PhaseClock:
    """The phases of one run or one iteration, in the order in which they ended."""

    def __init__(self) -> None:
        self.spans: list[PhaseSpan] = []

    @contextmanager
    def phase(self, phase: Phase, *, limit_s: float | None = None, hint: str = "") -> Iterator[None]:
        """Time what happens inside, also when it fails.

        Raises:
            PhaseTimeout: It did not end within the limit.
        """
        start = monotonic_ns()
        try:
            with anyio.move_on_after(limit_s) as scope:
                yield
            # An outer cancellation is raised through here, so this one is ours.
            if scope.cancelled_caught and limit_s is not None:
                raise PhaseTimeout(phase.value, limit_s, hint=hint)
        finally:
            self.spans.append(PhaseSpan(phase=phase, start_ns=start, duration_ns=monotonic_ns() - start))

    def add(self, spans: Iterable[PhaseSpan]) -> None:
        """Take in phases that somebody else timed."""
        self.spans.extend(spans)

    def results(self) -> tuple[PhaseResult, ...]:
        """Return each phase once, in the order of `Phase`; one that happened in parts is their sum."""
        totals: dict[Phase, int] = {}
        for span in self.spans:
            totals[span.phase] = totals.get(span.phase, 0) + span.duration_ns
        return tuple(PhaseResult(phase=phase, duration_s=totals[phase] / 1e9) for phase in Phase if phase in totals)
