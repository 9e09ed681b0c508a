"""Standard output and error of one iteration, kept in files so that the runner's memory stays flat."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio

from metalmark.model import OutputLimits, StreamResult
from metalmark.sandbox import OutputSink, Stream
from metalmark.system import no_space_told
from metalmark.wire import Exited


class StreamSpool:
    """One stream: takes bytes up to a bound, counts the rest, and lets a reader follow what was kept."""

    def __init__(self, path: Path, *, limit_bytes: int) -> None:
        self.path = path
        self.kept_bytes = 0
        self.received_bytes = 0
        self._limit_bytes = limit_bytes
        self._file = path.open("w+b", buffering=0)
        self._grown = anyio.Event()
        self._ended = False

    def write(self, data: bytes) -> int:
        """Keep what fits, and return how many bytes that is.

        Raises:
            NoSpace: The file system is full.
        """
        self.received_bytes += len(data)
        before = self.kept_bytes
        room = memoryview(data)[: max(0, self._limit_bytes - self.kept_bytes)]
        with no_space_told(self.path):
            while room:
                written = self._file.write(room)
                self.kept_bytes += written
                room = room[written:]
        self._wake()
        return self.kept_bytes - before

    def end(self) -> None:
        """Nothing more will come."""
        self._ended = True
        self._wake()

    def close(self) -> None:
        """Give back the descriptor; the file stays."""
        self._file.close()

    async def read(self, offset: int, size: int) -> bytes:
        """Return the next kept bytes from an offset; waits for them; nothing at the end."""
        while offset >= self.kept_bytes and not self._ended:
            self._grown = anyio.Event()
            await self._grown.wait()
        return os.pread(self._file.fileno(), size, offset)

    def result(self, written_bytes: int) -> StreamResult:
        """Return the counts; the text is not read.

        Args:
            written_bytes: What the guest says that the command wrote; 0 when it could not say.
        """
        written = max(written_bytes, self.received_bytes)
        return StreamResult(kept_bytes=self.kept_bytes, written_bytes=written, truncated=written > self.kept_bytes)

    def _wake(self) -> None:
        self._grown.set()


class OutputSpool:
    """Both streams of one iteration, as files ``stdout`` and ``stderr`` in a folder of its own.

    Args:
        folder: Made here.
        limits: How much is kept.
        tap: Is handed what was kept, as it comes.
    """

    def __init__(self, folder: Path, limits: OutputLimits, *, tap: OutputSink | None = None) -> None:
        folder.mkdir(mode=0o700)
        self.folder = folder
        self._tap = tap
        self.stdout = StreamSpool(folder / "stdout", limit_bytes=limits.stream_bytes)
        self.stderr = StreamSpool(folder / "stderr", limit_bytes=limits.stream_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
        self.stdout.close()
        self.stderr.close()

    def take(self, stream: Stream, data: bytes) -> None:
        """Keep output of the command; the sink that is given to a box."""
        kept = (self.stdout if stream is Stream.STDOUT else self.stderr).write(data)
        if kept and self._tap is not None:
            self._tap(stream, data[:kept])

    def end(self) -> None:
        """Nothing more will come on either stream."""
        self.stdout.end()
        self.stderr.end()

    def results(self, exited: Exited | None) -> tuple[StreamResult, StreamResult]:
        """Return the counts of stdout and stderr."""
        return (
            self.stdout.result(exited.stdout_bytes if exited else 0),
            self.stderr.result(exited.stderr_bytes if exited else 0),
        )
