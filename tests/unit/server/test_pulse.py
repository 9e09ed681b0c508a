"""Whether a process notices that it was stopped, and hears what was said meanwhile before it goes on."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from metalmark.server.pulse import Pulse
from metalmark.testing.fake_clock import FakeClock

pytestmark = pytest.mark.anyio


async def settle() -> None:
    for _ in range(5):
        await anyio.lowlevel.checkpoint()


async def test_a_process_that_runs_on_is_never_deaf() -> None:
    clock = FakeClock()
    pulse = Pulse(clock)
    async with anyio.create_task_group() as tasks:
        await tasks.start(pulse.run)
        for _ in range(100):
            clock.advance(0.7)
            assert not pulse.is_deaf()
            await settle()
        await pulse.hear()
        tasks.cancel_scope.cancel()


async def test_a_stop_shows_before_the_next_beat_and_until_its_sockets_were_heard() -> None:
    clock = FakeClock()
    pulse = Pulse(clock)
    async with anyio.create_task_group() as tasks:
        await tasks.start(pulse.run)
        clock.advance(60)
        assert pulse.is_deaf(), "nothing has run since"
        heard = anyio.Event()

        async def hear() -> None:
            await pulse.hear()
            heard.set()

        tasks.start_soon(hear)
        await settle()
        for _ in range(19):
            clock.advance(0.1)
            await settle()
            assert pulse.is_deaf()
            assert not heard.is_set()
        clock.advance(0.2)
        await settle()
        assert not pulse.is_deaf()
        assert heard.is_set()
        tasks.cancel_scope.cancel()
