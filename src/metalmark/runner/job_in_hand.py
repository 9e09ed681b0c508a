"""A job that this runner has: what is true of it now, for whoever tells the server."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from metalmark.model import Phase
from metalmark.runner.assignment import Assignment
from metalmark.runner.end_file import SpooledEnd
from metalmark.runner.live_tail import LiveTail
from metalmark.runner.stop_request import StopRequest


class JobInHand:
    """One job under one lease. Belongs to the event loop; every change of it counts in `JobsInHand.changed`.

    Args:
        job: Which.
        lease: Under which lease.
        assignment: What to do; None for the end of a job that an earlier process of this runner executed.
        end: Its end, when it is over.
        changed: Called at every change.
    """

    def __init__(
        self,
        job: UUID,
        lease: int,
        *,
        assignment: Assignment | None = None,
        end: SpooledEnd | None = None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.job = job
        self.lease = lease
        self.assignment = assignment
        self.began = False
        """The benchmark itself began: `Phase.EXEC` of the first iteration was reached."""
        self.phase: tuple[Phase, int] | None = None
        """The latest phase and its iteration (0 before the first); None before any."""
        self.phase_offset = 0
        """How many bytes the job had printed when that phase began."""
        self.output = LiveTail(changed=changed)
        self.is_executed = False
        """Whether its boxes are gone and only its end is to be written; it takes up no slot then."""
        self.end = end
        """None until the job is over; then its end, which is on disk already."""
        self.stop = StopRequest()
        """How its execution is stopped; `cancel` is how others ask for it."""
        self.canceled_because: str | None = None
        """Why it was canceled; None when it was not."""
        self.is_abandoned = False
        """Whether it was canceled because this runner gave it up, and not because anybody wanted it to end."""
        self.refused_because: str | None = None
        """Why it is not executed at all; None when it is."""
        self.is_lost = False
        """Whether its end is nobody's business any more."""
        self._changed = changed

    def enter(self, phase: Phase, iteration: int) -> None:
        """A phase begins."""
        self.phase = (phase, iteration)
        self.phase_offset = self.output.end_offset
        self.began |= phase is Phase.EXEC
        self._changed()

    def executed(self) -> None:
        """The last of its boxes is gone."""
        self.is_executed = True
        self._changed()

    def ended(self, end: SpooledEnd) -> None:
        """The job is over, and its end on disk."""
        self.end = end
        self._changed()

    def cancel(self, reason: str) -> None:
        """Stop the job: politely, then by force. Its end follows. Nothing when it is over already."""
        if self.end is not None or self.canceled_because is not None:
            return
        self.canceled_because = reason
        # Whoever executes it makes that a forced stop in time.
        self.stop.request()
        self._changed()

    def abandon(self, reason: str) -> None:
        """Stop the job because this runner cannot see it through; another may, if the benchmark has not begun."""
        if self.end is None and self.canceled_because is None:
            self.is_abandoned = True
            self.cancel(reason)
