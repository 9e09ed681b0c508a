"""The life of a box as a context manager: made, used, stopped whatever happened, its background tasks ended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
from anyio.abc import TaskGroup

from metalmark.sandbox.agent_box import AgentBox

B = TypeVar("B", bound=AgentBox)


@asynccontextmanager
async def living(make: Callable[[TaskGroup], B]) -> AsyncIterator[B]:
    """Make a box with a task group for its life, and stop it on leaving, also when canceled.

    An error of the block is raised as it is, not within a group as a task group would.
    """
    raised: Exception | None = None
    async with anyio.create_task_group() as tasks:
        box = make(tasks)
        try:
            yield box
        except Exception as error:  # noqa: BLE001 - raised again below, outside of the task group
            raised = error
        finally:
            with anyio.CancelScope(shield=True):
                await box.stop()
            tasks.cancel_scope.cancel()
    if raised is not None:
        raise raised
