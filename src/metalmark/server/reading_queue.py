"""Results that are stored and wait to be read, while their runners and channels go on.

The queue is a convenience of one process: a job in it is completed in the store, and whichever process starts or looks
next finds it there too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from uuid import UUID

import anyio
import structlog

from metalmark.model import MetalmarkError
from metalmark.store import JobRecord
from metalmark.system import Clock

_TRY_AGAIN_S = 1.0
_FAULTS_MAX = 3
"""After so many unforeseen errors, a job's results are left to the next start: perhaps of a version that can."""
_log = structlog.get_logger(__name__)


class ReadingQueue:
    """Completed jobs whose results are read one after the other: one alone may take the memory of many messages.

    Args:
        clock: What it waits by.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: dict[UUID, JobRecord] = {}
        self._faults: Counter[UUID] = Counter()
        self._more = anyio.Event()

    def __len__(self) -> int:
        """How many jobs wait, the one that is being read among them."""
        return len(self._waiting)

    def add(self, job: JobRecord) -> None:
        """Have a job's results read as soon as may be. One that waits already is read once."""
        if self._faults[job.id] >= _FAULTS_MAX:
            return
        self._waiting.setdefault(job.id, job)
        self._more.set()

    async def run(self, read: Callable[[JobRecord], Awaitable[object]]) -> None:
        """Read until canceled; what cannot be read or kept now is tried again, and ends nobody else's turn.

        Args:
            read: Reads one job's results and moves the job. It may raise `MetalmarkError` any number of times.
        """
        while True:
            await self._more.wait()
            self._more = anyio.Event()
            for job in list(self._waiting.values()):
                try:
                    await read(job)
                except MetalmarkError as error:
                    _log.warning("results not read yet", job=str(job.id), error=str(error))
                    self._more.set()
                    await self._clock.sleep_s(_TRY_AGAIN_S)
                except Exception as error:  # noqa: BLE001 - one job's fault is not the others', nor the server's end
                    self._note_fault(job, error)
                    await self._clock.sleep_s(_TRY_AGAIN_S)
                else:
                    del self._waiting[job.id]

    def _note_fault(self, job: JobRecord, error: Exception) -> None:
        self._faults[job.id] += 1
        last = self._faults[job.id] >= _FAULTS_MAX
        _log.error("results cannot be read", job=str(job.id), left_to_next_start=last, exc_info=error)
        if last:
            del self._waiting[job.id]
        else:
            self._more.set()
