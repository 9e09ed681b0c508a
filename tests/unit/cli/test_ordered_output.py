from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import anyio
import pytest
import structlog

from metalmark.cli.ordered_output import OrderedOutput, ordered_output

pytestmark = pytest.mark.anyio
WITHIN_S = 20.0


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ours, theirs = os.pipe()
    yield ours, theirs
    for descriptor in (ours, theirs):
        with suppress(OSError):
            os.close(descriptor)


@pytest.fixture
def output() -> Iterator[OrderedOutput]:
    made = OrderedOutput(limit_bytes=10_000)
    yield made
    made.close()


@contextmanager
def streams_in(descriptor: int) -> Iterator[None]:
    with (
        pytest.MonkeyPatch.context() as patch,
        os.fdopen(os.dup(descriptor), "w", encoding="utf-8") as out,
        os.fdopen(os.dup(descriptor), "w", encoding="utf-8") as err,
    ):
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        yield
    structlog.reset_defaults()


async def read(descriptor: int, count: int) -> bytes:
    seen = b""
    with anyio.fail_after(WITHIN_S):
        while len(seen) < count:
            await anyio.wait_readable(descriptor)
            seen += os.read(descriptor, 65536)
    return seen


async def test_both_streams_keep_their_common_order(pipe: tuple[int, int]) -> None:
    with streams_in(pipe[1]), ordered_output() as output:
        for number in range(50):
            sys.stdout.write(f"out {number}\n")
            sys.stderr.write(f"err {number} é\n")
            sys.stdout.buffer.write(b"\xff\n")
        await output.written()
    lines = os.read(pipe[0], 65536).splitlines()
    assert lines == [
        line for number in range(50) for line in (f"out {number}".encode(), f"err {number} é".encode(), b"\xff")
    ]


async def test_who_is_not_read_waits_and_loses_nothing(pipe: tuple[int, int], output: OrderedOutput) -> None:
    text = bytes(range(256)) * 1000
    waited = False
    async with anyio.create_task_group() as tasks:

        async def say_all() -> None:
            nonlocal waited
            for start in range(0, len(text), 1000):
                output.take(pipe[1], text[start : start + 1000])
                with anyio.move_on_after(0) as at_once:
                    await output.room()
                if at_once.cancelled_caught:
                    waited = True
                    await output.room()
            await output.written()
            os.close(pipe[1])

        tasks.start_soon(say_all)
        assert await read(pipe[0], len(text)) == text
    assert waited


async def test_waiting_can_be_canceled(pipe: tuple[int, int], output: OrderedOutput) -> None:
    output.take(pipe[1], bytes(1_000_000))
    for wait in (output.room, output.written):
        with anyio.move_on_after(0.02) as scope:
            await wait()
        assert scope.cancelled_caught
    assert not output.drain(0.01)
    os.close(pipe[0])
    assert output.drain(WITHIN_S)


async def test_in_a_hurry_nobody_waits_and_little_is_kept(pipe: tuple[int, int], output: OrderedOutput) -> None:
    output.take(pipe[1], bytes(100_000))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(output.written)
        await anyio.wait_all_tasks_blocked()
        output.hurry()
    for _ in range(1000):
        output.take(pipe[1], b"x" * 1000)
        await output.room()
    os.set_blocking(pipe[0], False)
    assert len(await read(pipe[0], 100_000)) <= 110_000
    assert output.drain(WITHIN_S)


async def test_reader_that_is_gone_is_told_once_and_costs_the_others_nothing(
    pipe: tuple[int, int], output: OrderedOutput
) -> None:
    gone, theirs = os.pipe()
    os.close(gone)
    output.take(theirs, b"lost")
    output.take(pipe[1], b"kept")
    await output.written()
    with pytest.raises(BrokenPipeError):
        output.take(theirs, b"lost")
    assert await read(pipe[0], 4) == b"kept"
    os.close(theirs)


def test_command_that_ends_waits_for_a_reader_for_a_second_alone(pipe: tuple[int, int]) -> None:
    with streams_in(pipe[1]):
        before = sys.stdout
        with ordered_output():
            sys.stdout.write("x" * 1_000_000)
        # What is said after that must not wait either.
        assert sys.stdout is not before
        sys.stdout.write("more\n")
        os.close(pipe[0])


def test_streams_that_are_taken_already_stay(capsys: pytest.CaptureFixture[str]) -> None:
    with ordered_output():
        sys.stdout.write("here\n")
    assert capsys.readouterr().out == "here\n"
