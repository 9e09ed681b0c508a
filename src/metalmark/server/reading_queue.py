"""Results that are stored and wait to be read, while their runners and channels go on.

The queue is a convenience of one process: a job in it is completed in the store, and whichever process starts or looks
next finds it there too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import UUID

import anyio
import structlog

from metalmark.model import MetalmarkError
from metalmark.store import JobRecord
from metalmark.system import Clock

_TRY_AGAIN_S = 1.0
_log = structlog.get_logger(__name__)


class ReadingQueue:
    """Completed jobs whose results are read one after the other: one alone may take the memory of many messages.

    Args:
        clock: What it waits by.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: dict[UUID, JobRecord] = {}
        self._more = anyio.Event()

    def __len__(self) -> int:
        """How many jobs wait, the one that is being read among them."""
        return len(self._waiting)

    def add(self, job: JobRecord) -> None:
        """Have a job's results read as soon as may be. One that waits already is read once."""
        self._waiting.setdefault(job.id, job)
        self._more.set()

    async def run(self, read: Callable[[JobRecord], Awaitable[object]]) -> None:
        """Read until canceled; what cannot be read or kept now is tried again.

        Args:
            read: Reads one job's results and moves the job. It may raise `MetalmarkError`.
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
                else:
                    del self._waiting[job.id]
