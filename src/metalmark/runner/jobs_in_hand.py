"""The jobs that this runner has, those included that are over and not acknowledged yet."""

from __future__ import annotations

from uuid import UUID

from metalmark.runner.assignment import Assignment
from metalmark.runner.job_in_hand import JobInHand


class JobsInHand:
    """What joins the two sides of a runner: one executes jobs, the other tells the server of them."""

    @property
    def version(self) -> int:
        """A number that grows with every change of any job, of the list, or of `free_slots`."""
        raise NotImplementedError

    async def changed(self, seen: int) -> int:
        """Wait until `version` is more than ``seen``, and return it."""
        raise NotImplementedError

    @property
    def free_slots(self) -> int:
        """How many more jobs fit now; 0 once claiming stopped."""
        raise NotImplementedError

    def holding(self) -> tuple[JobInHand, ...]:
        """Return all jobs in hand, in the order they were taken."""
        raise NotImplementedError

    def find(self, job: UUID, lease: int) -> JobInHand | None:
        """Return a job in hand under this lease, or None."""
        raise NotImplementedError

    def take(self, assignment: Assignment) -> None:
        """Take a job and start it. Does nothing when it is in hand under this lease already; an older lease is lost.

        A job that comes when there is no room, or claiming has stopped, is not executed: it ends as failed for want of
        infrastructure.
        """
        raise NotImplementedError

    def lost(self, job: UUID, lease: int) -> None:
        """The lease is another's or over: stop the job, and drop whatever there is of it. Its end is not told."""
        raise NotImplementedError

    async def acknowledged(self, job: UUID, lease: int) -> None:
        """The server has the end of this job: drop it from memory and disk."""
        raise NotImplementedError

    def stop_claiming(self) -> None:
        """Take no more jobs; those in hand go on."""
        raise NotImplementedError
