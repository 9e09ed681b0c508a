"""``metalmark run`` as a process: interrupts with and without a terminal, and lines that break."""

from __future__ import annotations

import base64
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.integration.cli.conftest import CommandLine
from tests.integration.cli.test_job import project, runner
from tests.integration.cli.test_run import words
from tests.integration.server.channel.test_own import OwnRunner

from metalmark.testing.faulty_line import FaultyLine, Line
from metalmark.testing.public_runner import PublicRunner
from metalmark.testing.raw_channel import RawChannel

__all__ = ["project", "runner"]
WITHIN_S = 60
CAPABLE = {
    "os": "linux", "architecture": "x86_64", "sandboxes": ["firecracker"], "vcpus": 8, "memory_bytes": 2**36,
    "disk_bytes": 2**40, "network": True,
}  # fmt: skip


@dataclass
class Watching:
    """A ``metalmark run`` that runs, and what it has written."""

    process: subprocess.Popen[bytes]
    keyboard: int | None = None
    out: bytearray = field(default_factory=bytearray)
    err: bytearray = field(default_factory=bytearray)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def collect(self, descriptor: int, into: bytearray) -> threading.Thread:
        def read() -> None:
            while True:
                try:
                    piece = os.read(descriptor, 65536)
                except OSError:
                    # What Linux answers when the other side of a terminal is gone.
                    piece = b""
                with self.changed:
                    into.extend(piece)
                    self.changed.notify_all()
                if not piece:
                    return

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        return reader

    def wait_for(self, text: str, *, out: bool = False) -> None:
        where = self.out if out else self.err
        with self.changed:
            assert self.changed.wait_for(lambda: text.encode() in where, WITHIN_S), bytes(where).decode()

    def type(self, keys: bytes) -> None:
        assert self.keyboard is not None
        os.write(self.keyboard, keys)

    def ends(self) -> int:
        return self.process.wait(WITHIN_S)

    @property
    def job(self) -> str:
        self.wait_for(" of project jobs")
        return self.err.decode().partition("job ")[2].split()[0]


@contextmanager
def watching(given: Sequence[str], *, terminal: bool = False) -> Iterator[Watching]:
    """Run a command; with a terminal for input and errors, or with neither."""
    command = [str(Path(sys.executable).with_name("metalmark")), *given]
    readers: list[threading.Thread] = []
    if terminal:
        ours, theirs = pty.openpty()
        # So that what is typed there becomes signals, it has to be the terminal that the process belongs to.
        command = ["setsid", "--ctty", *command]
        process = subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs)
        os.close(theirs)
        watched = Watching(process, ours)
        readers.append(watched.collect(ours, watched.err))
    else:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        watched = Watching(process)
        assert process.stderr is not None
        readers.append(watched.collect(process.stderr.fileno(), watched.err))
    assert process.stdout is not None
    readers.append(watched.collect(process.stdout.fileno(), watched.out))
    try:
        yield watched
    finally:
        process.kill()
        process.wait()
        for reader in readers:
            reader.join(WITHIN_S)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        if watched.keyboard is not None:
            os.close(watched.keyboard)


@contextmanager
def unread_terminal(given: Sequence[str]) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], None]]]:
    """Run a command whose output goes to a terminal that nobody reads; what comes beside it waits until it is full."""
    ours, theirs = pty.openpty()
    command = [str(Path(sys.executable).with_name("metalmark")), *given]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs)

    def stalled() -> None:
        poll = select.poll()
        poll.register(theirs, select.POLLOUT)
        deadline = time.monotonic() + WITHIN_S
        while poll.poll(0):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)

    try:
        yield process, stalled
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)


def print_much(own: OwnRunner, held: dict[str, Any]) -> None:
    """Print more than a terminal and a command keep for their reader."""
    own.tell(event="running", **held)
    piece = b"a line of sixty-four bytes, which stands for what jobs can print\n" * 1000
    for number in range(12):
        chunk = {"iteration": 1, "stream": "stdout", "data": base64.b64encode(piece[:65536]).decode()}
        offset = number * len(piece[:65536])
        assert own.tell(event="output", **held, offset=offset, chunks=[chunk])["event"] == "ack"


def status(command_line: CommandLine, job: str) -> str:
    found: str = command_line.json("job", "view", "jobs", job)["status"]
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_cancels_the_job_and_the_command_ends_with_it(
    command_line: CommandLine, runner: PublicRunner, project: str, number: signal.Signals
) -> None:
    with watching(words(command_line)) as run:
        job = run.job
        # Before it is taken: from then on it is pending no more.
        run.wait_for("pending")
        runner.take()
        run.process.send_signal(number)
        run.wait_for("canceling")
        assert run.ends() == 128 + number
        assert b"status   canceled" in run.err
    assert status(command_line, job) == "canceled"
    assert runner.heartbeat()["event"] == "cancel"
    runner.give_up(job)
    runner.disconnect()


def test_second_signal_ends_the_command_at_once_when_the_server_does_not_answer(
    command_line: CommandLine, runner: PublicRunner, project: str
) -> None:
    with FaultyLine(urlsplit(command_line.server.url).port or 0) as line:
        with watching((*words(command_line), "--host", line.url)) as run:
            job = run.job
            run.wait_for("pending")
            line.become(Line.STALLED)
            run.process.send_signal(signal.SIGTERM)
            run.wait_for("canceling")
            began = time.monotonic()
            run.process.send_signal(signal.SIGTERM)
            assert run.ends() == 143
            assert time.monotonic() - began < 10
    command_line.json("job", "cancel", "jobs", job)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_is_heeded_on_a_terminal_that_nobody_reads(
    command_line: CommandLine, runner: PublicRunner, project: str, number: signal.Signals
) -> None:
    with own_runner(command_line, runner) as own, unread_terminal(words(command_line)) as (run, stalled):
        held = own.take()
        print_much(own, held)
        stalled()
        run.send_signal(number)
        assert own.hear("cancel")["job"] == held["job"]
        assert run.wait(WITHIN_S) == 128 + number
        assert own.tell(event="canceled", **held, results=[])["event"] in ("ack", "refused")
    assert status(command_line, held["job"]) == "canceled"


def test_logs_of_a_job_end_by_an_interrupt_on_a_terminal_that_nobody_reads(
    command_line: CommandLine, runner: PublicRunner, project: str
) -> None:
    job = command_line.json(*words(command_line), "--detach")["job"]
    with own_runner(command_line, runner) as own:
        held = own.take()
        print_much(own, held)
        with unread_terminal(["job", "logs", "--follow", "jobs", job]) as (logs, stalled):
            stalled()
            logs.send_signal(signal.SIGINT)
            assert logs.wait(WITHIN_S) == 130
        own.tell(event="failed", **held, error="over", infrastructure=False, results=[{"exit_code": 1}])


def test_hang_up_leaves_the_job_alone(command_line: CommandLine, runner: PublicRunner, project: str) -> None:
    with watching(words(command_line)) as run:
        job = run.job
        run.wait_for("pending")
        run.process.send_signal(signal.SIGHUP)
        assert run.ends() == 129
    assert status(command_line, job) == "pending"
    command_line.json("job", "cancel", "jobs", job)


@pytest.mark.parametrize(
    ("keys", "code", "becomes"), [(b"d\n", 0, "pending"), (b"c\n", 130, "canceled"), (b"\x03", 130, "canceled")]
)
def test_interrupt_on_a_terminal_asks(
    command_line: CommandLine, runner: PublicRunner, project: str, keys: bytes, code: int, becomes: str
) -> None:
    with watching(words(command_line), terminal=True) as run:
        job = run.job
        run.wait_for("pending")
        run.type(b"\x03")
        run.wait_for("[d]etach")
        run.type(keys)
        assert run.ends() == code
    assert status(command_line, job) == becomes
    if becomes == "pending":
        assert f"job logs --follow jobs {job}".encode() in run.err
        command_line.json("job", "cancel", "jobs", job)


def test_after_enter_on_a_terminal_it_goes_on(command_line: CommandLine, runner: PublicRunner, project: str) -> None:
    with watching(words(command_line), terminal=True) as run:
        job = run.job
        run.wait_for("pending")
        run.type(b"\x03")
        run.wait_for("[d]etach")
        run.type(b"\n")
        runner.take()
        runner.complete(job, [{"exit_code": 0, "stdout": "told\n"}])
        runner.disconnect()
        assert run.ends() == 0
    assert run.out == b"told\n"


def test_nobody_who_reads_the_output_changes_the_outcome(
    command_line: CommandLine, runner: PublicRunner, project: str
) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    command = [str(Path(sys.executable).with_name("metalmark")), *words(command_line)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.PIPE)
    os.close(theirs)
    job = runner.take()["uuid"]
    runner.fail(job, [{"exit_code": 7, "stdout": "told\n"}, {"exit_code": 7, "stdout": "again\n"}], "exit code 7")
    runner.disconnect()
    _, err = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 7, err
    assert b"status   failed" in err


@contextmanager
def own_runner(command_line: CommandLine, runner: PublicRunner) -> Iterator[OwnRunner]:
    headers = {"Authorization": f"Bearer {runner.key}", "Sec-WebSocket-Protocol": "metalmark.1"}
    with RawChannel(command_line.server.url, "/v0/runners/rack/channel", headers) as channel:
        own = OwnRunner(channel)
        assert own.hello(capabilities=CAPABLE)["event"] == "welcome"
        assert own.want()["event"] == "ack"
        yield own


def test_broken_line_is_taken_up_where_it_broke(command_line: CommandLine, runner: PublicRunner, project: str) -> None:
    pieces = [f"line {number}\n".encode() for number in range(6)]
    with FaultyLine(urlsplit(command_line.server.url).port or 0) as line, own_runner(command_line, runner) as own:
        with watching((*words(command_line), "--host", line.url, "--max-retry-after", "1")) as run:
            held = own.take()
            own.tell(event="running", **held)
            offset = 0
            for number, piece in enumerate(pieces):
                chunk = {"iteration": 1, "stream": "stdout", "data": base64.b64encode(piece).decode()}
                assert own.tell(event="output", **held, offset=offset, chunks=[chunk])["event"] == "ack"
                offset += len(piece)
                if number == 3:
                    line.become(Line.WORKS)
                # The one in between is printed while nobody listens, and told all the same.
                if number != 2:
                    run.wait_for(piece.decode(), out=True)
                if number == 1:
                    line.become(Line.CUT)
                    run.wait_for("going on in 1 s")
            results = [{"exit_code": 4, "stdout": b"".join(pieces).decode()}]
            ended = own.tell(event="failed", **held, error="exit code 4", infrastructure=False, results=results)
            assert ended["event"] == "ack"
            assert run.ends() == 4
    assert bytes(run.out) == b"".join(pieces)
