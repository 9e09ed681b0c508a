"""A job that this runner has: what is true of it now, for whoever tells the server."""

from __future__ import annotations

from uuid import UUID

from metalmark.model import Phase
from metalmark.runner.assignment import Assignment
from metalmark.runner.live_tail import LiveTail
from metalmark.runner.result_spool import SpooledEnd


class JobInHand:
    """One job under one lease. Belongs to the event loop; every change of it counts in `JobsInHand.changed`."""

    job: UUID
    lease: int
    assignment: Assignment | None
    """None for the end of a job that an earlier process of this runner executed."""
    began: bool
    """The benchmark itself began: `Phase.EXEC` of the first iteration was reached."""
    phase: tuple[Phase, int] | None
    """The latest phase and its iteration (0 before the first); None before any."""
    output: LiveTail
    end: SpooledEnd | None
    """None until the job is over; then its end, which is on disk already."""

    def cancel(self, reason: str) -> None:
        """Stop the job: politely, then by force. Its end follows. Nothing when it is over already."""
        raise NotImplementedError
