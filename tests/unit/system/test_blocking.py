from __future__ import annotations

import threading

import anyio
import pytest

from metalmark.system import in_thread

pytestmark = pytest.mark.anyio


async def test_it_leaves_the_event_loops_thread() -> None:
    here = threading.get_ident()
    assert await in_thread(threading.get_ident) != here


async def test_errors_come_back() -> None:
    def fail(text: str) -> None:
        raise ValueError(text)

    with pytest.raises(ValueError, match="told"):
        await in_thread(fail, "told")


async def test_cancelling_waits_for_the_function() -> None:
    started, finish, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        finish.wait(20)
        ended.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(in_thread, work)
        await in_thread(started.wait, 20)
        tasks.cancel_scope.cancel()
        threading.Timer(0.05, finish.set).start()
    assert ended.is_set()
