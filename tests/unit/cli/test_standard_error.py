from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import structlog

from metalmark.cli.logs import Verbosity, set_up_logging
from metalmark.cli.standard_error import UnblockedStream, unblocked_stderr

WITHIN_S = 20.0
LINE = "a line of a log that nobody reads, over and over\n"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ours, theirs = os.pipe()
    yield ours, theirs
    for descriptor in (ours, theirs):
        with suppress(OSError):
            os.close(descriptor)


def read_until(descriptor: int, end: str) -> str:
    seen = bytearray()
    while end.encode() not in seen:
        seen += os.read(descriptor, 65536)
    return seen.decode()


@contextmanager
def stderr_in(descriptor: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, os.fdopen(os.dup(descriptor), "w", encoding="utf-8") as stream:
        patch.setattr(sys, "stderr", stream)
        set_up_logging(Verbosity.WARNING)
        yield
    structlog.reset_defaults()


def test_all_that_is_read_comes_in_order(pipe: tuple[int, int]) -> None:
    stream = UnblockedStream(pipe[1])
    for number in range(100):
        print(f"line {number} é", file=stream, flush=True)
    assert stream.drain(WITHIN_S)
    assert read_until(pipe[0], "99 é\n").splitlines() == [f"line {number} é" for number in range(100)]


def test_a_pipe_that_nobody_reads_holds_nobody_up_and_the_gap_is_told(pipe: tuple[int, int]) -> None:
    written = 40_000
    with stderr_in(pipe[1]), unblocked_stderr():
        stream = sys.stderr
        assert isinstance(stream, UnblockedStream)
        for _ in range(written):
            sys.stderr.write(LINE)
        assert not stream.drain(0.05)
        kept, _, told = read_until(pipe[0], "}\n").rpartition("{")
        dropped = json.loads("{" + told)["lines"]
        assert kept.count("\n") + dropped == written
        assert 0 < len(kept) < 500_000
        structlog.get_logger().warning("it flows")
        assert "it flows" in read_until(pipe[0], "\n")


def test_a_stream_that_flows_is_given_back(pipe: tuple[int, int]) -> None:
    with stderr_in(pipe[1]):
        before = sys.stderr
        with unblocked_stderr():
            sys.stderr.write(LINE)
        assert sys.stderr is before
        assert read_until(pipe[0], "\n") == LINE


def test_the_end_does_not_wait_for_a_reader_and_neither_does_what_is_said_after_it(pipe: tuple[int, int]) -> None:
    with stderr_in(pipe[1]):
        with unblocked_stderr():
            sys.stderr.write(LINE * 5000)
        sys.stderr.write("error: the last words\n")
        sys.stderr.flush()
        assert read_until(pipe[0], "last words")


def test_a_reader_who_is_gone_stops_nothing(pipe: tuple[int, int]) -> None:
    stream = UnblockedStream(pipe[1])
    os.close(pipe[0])
    stream.write(LINE)
    assert stream.drain(WITHIN_S)
    stream.write(LINE)
    assert stream.drain(WITHIN_S)


def test_a_descriptor_that_does_not_block_loses_nothing(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    stream = UnblockedStream(pipe[1])
    stream.write(LINE * 4000)
    stream.write("end\n")
    assert read_until(pipe[0], "end\n") == LINE * 4000 + "end\n"


def test_what_an_encoding_lacks_is_escaped(pipe: tuple[int, int]) -> None:
    UnblockedStream(pipe[1], encoding="ascii").write("é\udcff\n")
    assert read_until(pipe[0], "\n") == "\\xe9\\udcff\n"


def test_a_stream_without_descriptor_stays(capsys: pytest.CaptureFixture[str]) -> None:
    with unblocked_stderr():
        sys.stderr.write("seen\n")
    assert capsys.readouterr().err == "seen\n"
