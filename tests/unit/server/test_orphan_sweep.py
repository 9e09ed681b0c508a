from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest
from structlog.testing import capture_logs

from metalmark.model import StoreAway
from metalmark.server.orphan_sweep import EVERY_S, FIRST_S, OrphanSweep
from metalmark.testing.fake_clock import FakeClock

pytestmark = pytest.mark.anyio


async def test_a_sweep_that_fails_is_told_and_is_not_the_last() -> None:
    clock, swept = FakeClock(), 0
    faults: list[Exception | None] = [StoreAway("away", why="a test says so"), RuntimeError("a defect"), None]

    class Sweep(OrphanSweep):
        async def sweep(self) -> int:
            nonlocal swept
            swept += 1
            fault = faults.pop(0)
            if fault is not None:
                raise fault
            return 0

    with capture_logs() as logs:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Sweep(cast("Any", SimpleNamespace(clock=clock))).run)
            for number, wait_s in enumerate((FIRST_S, EVERY_S, EVERY_S)):
                await anyio.wait_all_tasks_blocked()
                assert swept == number
                clock.advance(wait_s)
            await anyio.wait_all_tasks_blocked()
            assert swept == 3
            tasks.cancel_scope.cancel()
    assert [(log["log_level"], "exc_info" in log) for log in logs] == [("warning", False), ("error", True)]
