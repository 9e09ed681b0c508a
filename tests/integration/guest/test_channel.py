"""What the agent makes of frames: order, unknown ones, and ones that no host of ours sends."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metalmark.testing.running_agent import AgentProgram
from metalmark.wire import (
    HEADER_BYTES,
    MAX_PAYLOAD_BYTES,
    Clock,
    Exec,
    ExecTag,
    Exited,
    Fault,
    Frame,
    FrameDecoder,
    Get,
    Hello,
    Kind,
    Put,
    Setup,
    encode,
    pack,
    signal_frame,
)

SANITIZERS = {"ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1", "UBSAN_OPTIONS": "print_stacktrace=1"}
TRUE = Exec(argv=("/bin/true",), stream_bytes=100)


class Line:
    """The host's end of an agent's channel, byte by byte."""

    def __init__(self, program: AgentProgram) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(20)
        argv = [*program.argv, "serve", str(theirs.fileno())]
        self.process = subprocess.Popen(argv, pass_fds=[theirs.fileno()], env={**os.environ, **SANITIZERS})
        theirs.close()
        self._decoder = FrameDecoder()
        self._frames = self._read()

    def _read(self) -> Iterator[Frame]:
        while data := self.socket.recv(65536):
            yield from self._decoder.feed(data)

    def next(self) -> Frame:
        return next(self._frames)

    def send(self, *frames: Frame) -> None:
        self.socket.sendall(b"".join(map(encode, frames)))

    def set_up(self) -> None:
        Hello.parse(self.next().payload)
        self.send(Setup().frame())
        assert self.next().kind == Kind.READY

    def end(self) -> int:
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()
            self.process.wait()
            self.socket.close()


@pytest.fixture
def line(program: AgentProgram) -> Iterator[Line]:
    line = Line(program)
    yield line
    line.end()


def test_the_agent_greets_unasked(line: Line) -> None:
    frame = line.next()
    assert (frame.kind, frame.stream) == (Kind.HELLO, 0)
    hello = Hello.parse(frame.payload)
    assert hello.kernel == os.uname().release
    assert hello.cpus == len(os.sched_getaffinity(0)) or hello.cpus == os.cpu_count()
    assert hello.agent.startswith("1+")


def test_nothing_runs_before_the_set_up_and_that_comes_once(line: Line) -> None:
    line.next()
    line.send(TRUE.frame(1))
    assert "not set up" in Fault.parse(line.next().payload).message
    line.send(Setup().frame(), Setup().frame())
    assert line.next().kind == Kind.READY
    assert "already" in Fault.parse(line.next().payload).message


def test_a_root_is_made_only_in_a_machine_of_ours(line: Line) -> None:
    line.next()
    line.send(Setup(root="/dev/vda").frame())
    frame = line.next()
    assert frame.kind == Kind.FAULT
    line.send(Setup().frame())
    assert line.next().kind == Kind.READY


def test_frames_arrive_in_any_pieces(line: Line) -> None:
    line.set_up()
    data = encode(TRUE.frame(1)) + encode(Frame(kind=Kind.CLOCK, stream=0))
    for position in range(len(data)):
        line.socket.sendall(data[position : position + 1])
    kinds = {line.next().kind for _ in range(3)}
    assert kinds == {Kind.STARTED, Kind.EXITED, Kind.CLOCK_IS}


def test_unknown_frames_and_fields_are_passed_over(line: Line) -> None:
    line.set_up()
    exec_ = TRUE.frame(1)
    line.send(
        Frame(kind=0x7F, stream=5, payload=b"new"),
        Frame(kind=Kind.INPUT, stream=99, payload=b"late"),
        signal_frame(99, 9),
        Frame(kind=Kind.EXEC, stream=1, payload=exec_.payload + pack([(250, b"new"), (251, 7)])),
    )
    assert line.next().kind == Kind.STARTED
    assert Exited.parse(line.next().payload).code == 0


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x01",
        b"\x01\xff\xff\xff\xff",
        pack([(ExecTag.ENV, b"A=b")]),
        pack([(ExecTag.ARG, b"a\0b")]),
        pack([(ExecTag.ARG, b"true"), (ExecTag.STREAM_BYTES, b"short")]),
        pack([(ExecTag.ARG, b"true")]) + b"\x01\x05\x00\x00\x00abc",
    ],
)
def test_a_malformed_command_is_a_fault_of_its_stream(line: Line, payload: bytes) -> None:
    line.set_up()
    line.send(Frame(kind=Kind.EXEC, stream=7, payload=payload))
    frame = line.next()
    assert (frame.kind, frame.stream) == (Kind.FAULT, 7)
    line.send(TRUE.frame(8))
    assert line.next().kind == Kind.STARTED


def test_a_stream_in_use_cannot_be_opened_again(line: Line) -> None:
    line.set_up()
    line.send(Exec(argv=("/bin/sleep", "1000"), stream_bytes=1).frame(3))
    assert line.next().kind == Kind.STARTED
    line.send(TRUE.frame(3))
    frame = line.next()
    assert (frame.kind, frame.stream) == (Kind.FAULT, 3)


def test_a_frame_over_the_bound_ends_the_agent(line: Line) -> None:
    line.set_up()
    header = bytearray(encode(Frame(kind=Kind.EXEC, stream=1))[:HEADER_BYTES])
    header[5:9] = (MAX_PAYLOAD_BYTES + 1).to_bytes(4, "little")
    line.socket.sendall(header)
    assert line.process.wait(20) == 1


def test_input_beyond_the_window_ends_the_agent(line: Line) -> None:
    line.set_up()
    line.send(Exec(argv=("/bin/sleep", "1000"), stream_bytes=1, stdin=True).frame(1))
    # The pipe takes some of it, the window the rest; this is more than both.
    piece = Frame(kind=Kind.INPUT, stream=1, payload=bytes(60_000))
    with suppress(OSError):
        for _ in range(40):
            line.send(piece)
    line.process.wait(20)


def test_the_largest_frame_is_taken(line: Line) -> None:
    line.set_up()
    argument = "x" * 100_000
    line.send(Exec(argv=("/bin/true", *[argument] * 9), stream_bytes=1).frame(1))
    assert line.next().kind == Kind.STARTED


def test_the_clock_is_the_machines(line: Line) -> None:
    line.set_up()
    before = time.monotonic_ns()
    line.send(Frame(kind=Kind.CLOCK, stream=0))
    clock = Clock.parse(line.next().payload)
    assert before <= clock.monotonic_ns <= time.monotonic_ns()
    assert abs(clock.realtime_ns - time.time_ns()) < 10**10


def test_when_the_host_hangs_up_the_agent_ends(line: Line) -> None:
    line.set_up()
    line.send(Exec(argv=("/bin/sleep", "1000"), stream_bytes=1).frame(1))
    assert line.next().kind == Kind.STARTED
    assert line.end() == 1


# Noise must not name a place on this machine.
VALUES = st.one_of(st.integers(0, 2**64 - 1), st.binary(max_size=20).map(lambda data: data.replace(b"/", b"_")))
NOISE = st.one_of(
    st.builds(
        lambda kind, stream, payload: encode(Frame(kind=kind, stream=stream, payload=payload)),
        st.sampled_from([kind for kind in Kind if kind < 0x80 and kind is not Kind.POWEROFF]),
        st.integers(0, 4),
        st.binary(max_size=200),
    ),
    st.builds(
        lambda kind, stream, fields: encode(Frame(kind=kind, stream=stream, payload=pack(fields))),
        st.sampled_from([Kind.SETUP, Kind.GET, Kind.PUT, Kind.SIGNAL, Kind.CLOCK]),
        st.integers(0, 4),
        st.lists(st.tuples(st.integers(0, 13), VALUES)),
    ),
    st.binary(max_size=50).map(lambda data: encode(Frame(kind=Kind.INPUT, stream=2, payload=data))),
    st.just(encode(Get(patterns=("nothing*",), max_bytes=0, max_files=0).frame(3))),
    st.just(encode(Put(folder="relative").frame(2))),
    st.just(encode(TRUE.frame(4))),
)


@settings(
    max_examples=400 if os.environ.get("METALMARK_SOAK") else 15,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(noise=st.lists(NOISE, max_size=30), tail=st.binary(max_size=30))
def test_noise_never_breaks_the_agent(sanitized_agent: object, noise: list[bytes], tail: bytes) -> None:
    """It answers or ends by its own choice; a sanitizer would abort it."""
    line = Line(AgentProgram(argv=(str(sanitized_agent),), kind="sanitized"))
    with suppress(OSError):
        line.socket.sendall(encode(Setup().frame()) + b"".join(noise) + tail)
    deadline = time.monotonic() + 0.05
    with suppress(OSError):
        while time.monotonic() < deadline and select.select([line.socket], [], [], 0.02)[0]:
            if not line.socket.recv(1 << 16):
                break
    assert line.end() in (0, 1)
