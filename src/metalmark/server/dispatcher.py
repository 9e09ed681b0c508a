"""Dispatch: pending jobs to the runners that wait for them, without polling."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol
from uuid import UUID

from anyio.abc import TaskStatus

from metalmark.model import Capabilities
from metalmark.store import ClaimedJob


class Dispatcher(Protocol):
    """Gives each pending job to one waiting runner, in this process or another of the same store."""

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Listen to the store's notices until canceled; started once, before any runner waits."""

    async def wait_for_job(
        self,
        *,
        runner: UUID,
        capabilities: Capabilities,
        specs: Collection[UUID] | None = None,
        deadline_s: float,
    ) -> ClaimedJob | None:
        """Claim a job for a runner, at once or as soon as there is one.

        A canceled wait leaves no job claimed that the caller does not know of: a claim that was under way when the
        caller was canceled goes back to the queue.

        Args:
            runner: The runner that will hold the lease.
            capabilities: What its probes proved; `public_runner` for one that says nothing.
            specs: Those of its specs that fit beside what it already does; None stands for all of them.
            deadline_s: Seconds on the clock that never steps, after which no further claim is tried. One claim is tried
                even when it is past.

        Returns:
            The job, its lease running, or None when there was none until the deadline.
        """
