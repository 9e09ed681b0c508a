"""A sandbox that runs nothing: each box plays the command that a test wrote for it."""

from __future__ import annotations

import io
import tarfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from signal import SIGKILL

import anyio
import anyio.lowlevel

from metalmark.model import BoxLost, MetalmarkError, Phase, PhaseSpan, SandboxName
from metalmark.sandbox import (
    Accelerator,
    Availability,
    Box,
    BoxFacts,
    BoxSpec,
    DataSink,
    Driver,
    Execution,
    OutputSink,
    Stream,
)
from metalmark.system import sleep_s
from metalmark.wire import Clock, Done, Ending, Exec, Exited, Get


@dataclass(frozen=True, kw_only=True)
class FakeCommand:
    """What happens in one box."""

    stdout: Sequence[bytes] = ()
    stderr: Sequence[bytes] = ()
    ending: Ending = Ending.EXITED
    code: int = 0
    message: str = ""
    endless: bool = False
    """It ends by a signal only."""
    ignores: frozenset[int] = frozenset()
    """Signals that do not end it."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    archive: bytes | None = None
    """Sent for output files instead of a tar stream of `files`."""
    start_error: MetalmarkError | None = None
    hangs_at_start: bool = False
    starts_after_s: float = 0.0
    """From the request to run it until its program runs."""
    lost: bool = False
    """The box goes away after the output."""


class FakeExecution(Execution):
    """Plays a command."""

    def __init__(self, command: FakeCommand, request: Exec, output: OutputSink) -> None:
        self.signals: list[int] = []
        self._command = command
        self._ended = anyio.Event()
        self._by: int | None = None
        self._counts = {Stream.STDOUT: 0, Stream.STDERR: 0}
        for stream, pieces in ((Stream.STDOUT, command.stdout), (Stream.STDERR, command.stderr)):
            for piece in pieces:
                kept = piece[: max(0, request.stream_bytes - self._counts[stream])]
                self._counts[stream] += len(piece)
                if kept:
                    output(stream, kept)

    async def started(self) -> None:
        """Take as long as the command says."""
        await sleep_s(self._command.starts_after_s)

    async def wait(self) -> Exited:
        """End at once, or with the first signal that counts."""
        await anyio.lowlevel.checkpoint()
        if self._command.lost:
            raise BoxLost("the fake box went away")
        if self._command.endless:
            await self._ended.wait()
        by_signal = self._by is not None
        return Exited(
            ending=Ending.SIGNALED if by_signal else self._command.ending,
            code=self._by if self._by is not None else self._command.code,
            started_ns=1_000_000_000,
            ended_ns=1_500_000_000,
            user_us=400_000,
            system_us=50_000,
            memory_peak_bytes=1024 * 1024,
            stdout_bytes=self._counts[Stream.STDOUT],
            stderr_bytes=self._counts[Stream.STDERR],
            message=self._command.message,
            left_killed=0,
        )

    async def signal(self, number: int) -> None:
        """Remember it, and end unless it is ignored."""
        self.signals.append(number)
        if number not in self._command.ignores or number == SIGKILL:
            self._by = number
            self._ended.set()

    async def write(self, data: bytes) -> None:
        """Ignore it."""

    async def close_stdin(self) -> None:
        """Ignore it."""


class FakeBox(Box):
    """One box that plays one command."""

    def __init__(self, spec: BoxSpec, command: FakeCommand, accelerator: Accelerator) -> None:
        self.spec = spec
        self.requests: list[Exec] = []
        self.executions: list[FakeExecution] = []
        self.stopped = False
        self.removed = False
        self._command = command
        self._accelerator = accelerator

    @property
    def facts(self) -> BoxFacts:
        """Say that it is a container."""
        return BoxFacts(
            sandbox=SandboxName.CONTAINER, accelerator=self._accelerator, kernel="0.0-fake", details={"fake": "yes"}
        )

    @property
    def phases(self) -> tuple[PhaseSpan, ...]:
        """One millisecond each."""
        return tuple(
            PhaseSpan(phase=phase, start_ns=0, duration_ns=1_000_000)
            for phase in (Phase.SPAWN, Phase.KERNEL, Phase.AGENT)
        )

    async def start(self) -> None:
        """Start, fail or hang, as the command says."""
        await anyio.lowlevel.checkpoint()
        if self._command.start_error is not None:
            raise self._command.start_error
        if self._command.hangs_at_start:
            await anyio.sleep_forever()

    async def exec(self, request: Exec, output: OutputSink) -> Execution:
        """Play the command."""
        self.requests.append(request)
        self.executions.append(FakeExecution(self._command, request, output))
        return self.executions[-1]

    async def copy_out(self, request: Get, data: DataSink) -> Done:
        """Send the files that match."""
        wanted = {
            path: content
            for path, content in self._command.files.items()
            if any(fnmatch(path, pattern) for pattern in request.patterns)
        }
        archive = self._command.archive if self._command.archive is not None else _tar(wanted)
        for at in range(0, len(archive), 1000):
            data(archive[at : at + 1000])
        missing = tuple(p for p in request.patterns if not any(fnmatch(path, p) for path in wanted))
        return Done(files=len(wanted), transferred_bytes=len(archive), truncated=False, missing=missing)

    async def copy_in(self, folder: str, tar: Path) -> Done:
        """Take nothing."""
        del folder, tar
        return Done(files=0, transferred_bytes=0, truncated=False, missing=())

    async def clock(self) -> Clock:
        """Stand still."""
        return Clock(monotonic_ns=0, realtime_ns=0)

    async def stop(self) -> None:
        """Remember it."""
        self.stopped = True


class FakeDriver(Driver):
    """Makes boxes that play the commands in their order; the last one is repeated."""

    def __init__(self, *commands: FakeCommand, accelerator: Accelerator = Accelerator.NATIVE) -> None:
        self.boxes: list[FakeBox] = []
        self.accelerator = accelerator
        self._commands = commands or (FakeCommand(),)

    @property
    def name(self) -> SandboxName:
        """Say that it makes containers."""
        return SandboxName.CONTAINER

    async def probe(self) -> Availability:
        """Say that it works."""
        return Availability(usable=True, accelerator=self.accelerator, reason="a fake always works")

    def create(self, spec: BoxSpec) -> AbstractAsyncContextManager[Box]:
        """Make the next box."""
        return self._create(spec)

    @asynccontextmanager
    async def _create(self, spec: BoxSpec) -> AsyncIterator[Box]:
        command = self._commands[min(len(self.boxes), len(self._commands) - 1)]
        box = FakeBox(spec, command, self.accelerator)
        self.boxes.append(box)
        try:
            yield box
        finally:
            box.removed = True


def _tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, content in files.items():
            member = tarfile.TarInfo(path.lstrip("/"))
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
