from __future__ import annotations

import os
from pathlib import Path

import anyio
import pytest

from metalmark.model import OutputLimits
from metalmark.runner.live_output import LiveOutput
from metalmark.runner.output_spool import OutputSpool
from metalmark.sandbox import Stream

pytestmark = pytest.mark.anyio


async def test_forwards_both_streams_while_they_grow(tmp_path: Path) -> None:
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    with OutputSpool(tmp_path / "s", OutputLimits()) as spool:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(LiveOutput(stdout=out_write, stderr=err_write).forward, spool)
            spool.take(Stream.STDOUT, b"first")
            with anyio.fail_after(5):
                await anyio.wait_readable(out_read)
            assert os.read(out_read, 100) == b"first"
            spool.take(Stream.STDERR, b"\x00\xff")
            spool.take(Stream.STDOUT, b"second")
            spool.end()
    os.close(out_write)
    os.close(err_write)
    assert os.read(out_read, 100) == b"second"
    assert os.read(err_read, 100) == b"\x00\xff"
    os.close(out_read)
    os.close(err_read)


async def test_forwards_to_files_beyond_what_a_pipe_holds(tmp_path: Path) -> None:
    data = os.urandom(300_000)
    with (tmp_path / "target").open("wb") as target, OutputSpool(tmp_path / "s", OutputLimits()) as spool:
        spool.take(Stream.STDOUT, data)
        spool.end()
        await LiveOutput(stdout=target.fileno(), stderr=target.fileno()).forward(spool)
    assert (tmp_path / "target").read_bytes() == data


async def test_reader_that_stops_reading_holds_up_nothing_else(tmp_path: Path) -> None:
    read, write = os.pipe()
    with OutputSpool(tmp_path / "s", OutputLimits()) as spool:
        with anyio.move_on_after(0.2) as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(LiveOutput(stdout=write, stderr=write).forward, spool)
                spool.take(Stream.STDOUT, b"x" * 1_000_000)
                await anyio.sleep(0.05)
                spool.take(Stream.STDOUT, b"y")
                spool.end()
        assert scope.cancelled_caught, "it waits for the reader, and can be given up"
        assert spool.stdout.kept_bytes == 1_000_001
    os.close(read)
    os.close(write)


async def test_reader_that_is_gone_ends_the_forwarding(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with OutputSpool(tmp_path / "s", OutputLimits()) as spool:
        spool.take(Stream.STDOUT, b"x" * 10_000)
        spool.end()
        with anyio.fail_after(5):
            await LiveOutput(stdout=write, stderr=write).forward(spool)
    os.close(write)


async def test_device_that_cannot_be_waited_for(tmp_path: Path) -> None:
    null = os.open("/dev/null", os.O_WRONLY)
    with OutputSpool(tmp_path / "s", OutputLimits()) as spool:
        spool.take(Stream.STDERR, b"x" * 100_000)
        spool.end()
        with anyio.fail_after(5):
            await LiveOutput(stdout=null, stderr=null).forward(spool)
    os.close(null)


@pytest.mark.parametrize("duplicate", [False, True])
async def test_two_streams_into_one_pipe(tmp_path: Path, *, duplicate: bool) -> None:
    read, write = os.pipe()
    other = os.dup(write) if duplicate else write
    received = bytearray()
    with OutputSpool(tmp_path / "s", OutputLimits()) as spool:
        spool.take(Stream.STDOUT, b"o" * 200_000)
        spool.take(Stream.STDERR, b"e" * 200_000)
        spool.end()
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(LiveOutput(stdout=write, stderr=other).forward, spool)
                while len(received) < 400_000:
                    await anyio.wait_readable(read)
                    received += os.read(read, 5000)
    assert received.count(b"o") == received.count(b"e") == 200_000
    for descriptor in {read, write, other}:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("stdout", "stderr", "one_file", "within"),
    [
        (b"", b"", True, False),
        (b"abc", b"", True, True),
        (b"abc\n", b"", True, False),
        (b"abc", b"", False, False),
        (b"abc\n", b"e", False, True),
    ],
)
async def test_unfinished_line_where_standard_error_goes_is_known(
    tmp_path: Path, stdout: bytes, stderr: bytes, *, one_file: bool, within: bool
) -> None:
    with (
        (tmp_path / "out").open("wb") as out,
        (tmp_path / "err").open("wb") as err,
        OutputSpool(tmp_path / "s", OutputLimits()) as spool,
    ):
        live = LiveOutput(stdout=err.fileno() if one_file else out.fileno(), stderr=err.fileno())
        spool.take(Stream.STDOUT, stdout)
        spool.take(Stream.STDERR, stderr)
        spool.end()
        await live.forward(spool)
    assert live.within_line is within
