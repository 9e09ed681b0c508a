"""The jobs that this runner has, those included that are over and not acknowledged yet."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from uuid import UUID

import anyio
import structlog

from metalmark.runner.assignment import Assignment
from metalmark.runner.end_file import EndKind, EndOfJob, SpooledEnd
from metalmark.runner.job_in_hand import JobInHand
from metalmark.runner.result_spool import ResultSpool
from metalmark.system import in_thread
from metalmark.wire import SLOTS_MAX

_log = structlog.get_logger(__name__)

Execute = Callable[[JobInHand], Awaitable[SpooledEnd]]
"""Executes a job to its end, which is on disk then, whatever it is; raises nothing of Metalmark's own."""


class JobsInHand:
    """What joins the two sides of a runner: one executes jobs, the other tells the server of them.

    Args:
        spool: Where ends are kept.
        slots: How many jobs run at the same time.
        left: Ends that an earlier process left in the spool.
    """

    def __init__(self, spool: ResultSpool, *, slots: int = 1, left: Iterable[SpooledEnd] = ()) -> None:
        self._spool = spool
        self._slots = slots
        self._jobs = {(end.job, end.lease): JobInHand(end.job, end.lease, end=end) for end in left}
        self._lost: set[JobInHand] = set()
        self._stopping: set[JobInHand] = set()
        self._taken: list[JobInHand] = []
        self._claiming = True
        self._leaving = False
        self._version = 0
        self._change = anyio.Event()

    @property
    def version(self) -> int:
        """A number that grows with every change of any job, of the list, or of `free_slots`."""
        return self._version

    async def changed(self, seen: int) -> int:
        """Wait until `version` is more than ``seen``, and return it."""
        while self._version <= seen:
            await self._change.wait()
        return self._version

    @property
    def free_slots(self) -> int:
        """How many more jobs fit now; 0 once claiming stopped."""
        return self._room if self._claiming and not self._leaving else 0

    @property
    def _room(self) -> int:
        # A job that was lost takes up its slot until its box is gone. What waits for the server takes up none, as long
        # as one message can name all that is in hand.
        running = len(self._stopping) + sum(job.end is None and not job.is_executed for job in self._jobs.values())
        return max(0, min(self._slots - running, SLOTS_MAX - len(self._jobs)))

    def holding(self) -> tuple[JobInHand, ...]:
        """Return all jobs in hand, in the order they were taken."""
        return tuple(self._jobs.values())

    def find(self, job: UUID, lease: int) -> JobInHand | None:
        """Return a job in hand under this lease, or None."""
        return self._jobs.get((job, lease))

    def take(self, assignment: Assignment) -> None:
        """Take a job and start it. Does nothing when it is in hand under this lease already; an older lease is lost.

        A job that comes when there is no room, or claiming has stopped, is not executed: it ends as failed for want of
        infrastructure.
        """
        if self.find(assignment.job, assignment.lease) is not None:
            return
        for held in self.holding():
            if held.job == assignment.job:
                self.lost(held.job, held.lease)
        job = JobInHand(assignment.job, assignment.lease, assignment=assignment, changed=self._note)
        if self.free_slots == 0:
            leaving = self._leaving or not self._claiming
            why = "the runner is on its way out" if leaving else "the runner has no room for another job"
            job.refused_because = why
        self._jobs[job.job, job.lease] = job
        self._taken.append(job)
        self._note()

    def lost(self, job: UUID, lease: int) -> None:
        """The lease is another's or over: stop the job, and drop whatever there is of it. Its end is not told."""
        found = self._jobs.pop((job, lease), None)
        if found is None:
            return
        found.is_lost = True
        found.cancel("its lease was lost")
        # Whoever serves the jobs removes what is on disk.
        self._lost.add(found)
        if found.end is None:
            self._stopping.add(found)
        else:
            self._taken.append(found)
        self._note()

    async def acknowledged(self, job: UUID, lease: int) -> None:
        """The server has the end of this job: drop it from memory and disk."""
        found = self.find(job, lease)
        if found is None or found.end is None:
            return
        await self._forget(found)
        self._jobs.pop((job, lease), None)
        self._note()

    def stop_claiming(self) -> None:
        """Take no more jobs; those in hand go on."""
        self._claiming = False
        self._note()

    def resume_claiming(self) -> None:
        """Take jobs again, unless `leave` was called."""
        self._claiming = True
        self._note()

    def leave(self) -> None:
        """Take no more jobs ever; those in hand go on."""
        self._leaving = True
        self._note()

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs; ends may wait for the server."""
        return not self._lost and all(job.end is not None for job in self._jobs.values())

    async def idle(self) -> None:
        """Wait until nothing runs."""
        while not self.is_idle:
            await self.changed(self._version)

    async def empty(self) -> None:
        """Wait until nothing runs and the server has every end."""
        while not self.is_idle or self._jobs:
            await self.changed(self._version)

    async def serve(self, execute: Execute) -> None:
        """Execute what is taken, each job in a task of its own, until canceled."""
        seen = -1
        async with anyio.create_task_group() as tasks:
            while True:
                taken, self._taken = self._taken, []
                for job in taken:
                    tasks.start_soon(self._see_through, job, execute)
                seen = await self.changed(seen)

    async def _see_through(self, job: JobInHand, execute: Execute) -> None:
        try:
            if job.end is None and not job.is_lost:
                job.ended(await self._end_of(job, execute))
        finally:
            if job.is_lost:
                with anyio.CancelScope(shield=True):
                    await self._forget(job)
                self._lost.discard(job)
                self._stopping.discard(job)
                self._note()

    async def _end_of(self, job: JobInHand, execute: Execute) -> SpooledEnd:
        if job.refused_because is None:
            return await execute(job)
        end = EndOfJob(kind=EndKind.FAILED, error=job.refused_because, infrastructure=True)
        return await in_thread(self._spool.keep_bare, job.job, job.lease, end)

    async def _forget(self, job: JobInHand) -> None:
        try:
            await in_thread(self._spool.forget, job.job, job.lease)
        except OSError as error:
            # It is told again after the next start, which changes nothing.
            _log.error("the end of a job cannot be removed", job=str(job.job), error=str(error))

    def _note(self) -> None:
        self._version += 1
        event, self._change = self._change, anyio.Event()
        event.set()
