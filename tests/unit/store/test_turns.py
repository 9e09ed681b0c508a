"""Turns are given in the order they were asked for, and not for ever waited for."""

from __future__ import annotations

import anyio
import pytest

from metalmark.model import StoreBusy
from metalmark.store.turns import Turns

pytestmark = pytest.mark.anyio


async def test_whoever_waited_longest_comes_next() -> None:
    turns = Turns(2, 30)
    order: list[tuple[int, int]] = []

    async def work(number: int) -> None:
        for turn in range(3):
            async with turns.turn():
                order.append((turn, number))
                await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(work, number)
    # Nobody has a second turn before everybody had a first.
    assert [turn for turn, _ in order] == sorted(turn for turn, _ in order)


async def test_one_who_waits_too_long_is_told() -> None:
    turns = Turns(1, 0.01)
    async with turns.turn():
        with pytest.raises(StoreBusy):
            async with turns.turn():
                pass
    async with turns.turn():
        pass


async def test_one_who_gives_up_takes_no_place() -> None:
    turns = Turns(1, 30)
    async with turns.turn():
        with anyio.move_on_after(0.01):
            async with turns.turn():
                pass
    with anyio.fail_after(30):
        async with turns.turn():
            pass
