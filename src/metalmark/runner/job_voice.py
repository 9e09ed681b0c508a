"""How one connection speaks of one job: what it asks the server, what a refusal means, and when it is to wait."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from metalmark.runner.job_in_hand import JobInHand
from metalmark.runner.jobs_in_hand import JobsInHand
from metalmark.runner.session_pace import SessionPace
from metalmark.wire import Body, RefusalReason, Refused, Taken

GONE = frozenset((RefusalReason.STALE_LEASE, RefusalReason.OVER))
"""Refusals after which the server wants nothing more of the job."""
_log = structlog.get_logger(__name__)

Answered = Callable[[Taken | Refused], Awaitable[None]]


class Asking(Protocol):
    """The connection, as far as one job needs it."""

    async def ask(self, message: Callable[[int], Body], answered: Answered, *, limit_s: float) -> None:
        """Send a message, made with its number; its answer is handed over within the limit, or the connection ends."""

    def look_again(self) -> None:
        """Call `JobTeller.tell` again."""

    async def pause(self, seconds: float) -> None:
        """Wait."""

    def start(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do something beside the telling."""


class JobVoice:
    """What all that is told of one job over one connection has in common.

    Args:
        job: The job.
        jobs: All jobs in hand.
        asking: The connection.
        pace: Times.
    """

    def __init__(self, job: JobInHand, *, jobs: JobsInHand, asking: Asking, pace: SessionPace) -> None:
        self.job = job
        self.jobs = jobs
        self.asking = asking
        self.pace = pace
        self.waits = False
        """Whether the server has asked for time."""

    def is_refused(self, answer: Taken | Refused) -> bool:
        """Deal with a refusal; return whether what was refused is to be said again."""
        if isinstance(answer, Taken):
            return False
        if answer.reason is RefusalReason.BUSY:
            self.wait(self.pace.again_s)
            return True
        if answer.reason in GONE:
            if self.job.end is None:
                _log.warning("job lost", job=str(self.job.job), lease=self.job.lease, reason=str(answer.reason))
                self.jobs.lost(self.job.job, self.job.lease)
            return False
        _log.error("message refused", job=str(self.job.job), reason=str(answer.reason), message=answer.message)
        return False

    def wait(self, seconds: float) -> None:
        """Say nothing of the job for a while."""
        self.waits = True

        async def pause() -> None:
            await self.asking.pause(seconds)
            self.waits = False
            self.asking.look_again()

        self.asking.start(pause)
