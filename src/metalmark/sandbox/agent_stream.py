"""What one stream of an agent's connection may receive, and what has been received on it."""

from __future__ import annotations

from typing import Generic, TypeVar

import anyio

from metalmark.model import MetalmarkError, ProtocolError
from metalmark.sandbox.port import DataSink, OutputSink, Stream
from metalmark.wire import INPUT_WINDOW_BYTES, Done, Exec, Exited, Frame, Get, Kind, credit_of

T = TypeVar("T")

_HEADERS_BYTES = 16 * 1024
"""Most that one file adds to an archive beside its content: two headers, a long name, padding."""


class Reply(Generic[T]):
    """An answer that may have come, or never will."""

    def __init__(self) -> None:
        self._event = anyio.Event()
        self._value: T | None = None
        self._error: MetalmarkError | None = None

    @property
    def is_set(self) -> bool:
        """Whether it has come, or the reason why it never will."""
        return self._event.is_set()

    def set(self, value: T) -> None:
        """It has come."""
        self._value = value
        self._event.set()

    def fail(self, error: MetalmarkError) -> None:
        """It will not come; no effect when it has."""
        if not self.is_set:
            self._error = error
            self._event.set()

    async def wait(self) -> T:
        """Wait for it.

        Raises:
            MetalmarkError: The reason why it will not come.
        """
        await self._event.wait()
        if self._error is not None:
            raise self._error
        assert self._value is not None
        return self._value


class _Window:
    """How many bytes the other side still takes."""

    def __init__(self) -> None:
        self._free = INPUT_WINDOW_BYTES
        self._open = True
        self._changed = anyio.Event()

    def add(self, count: int) -> None:
        if count == 0 or self._free + count > INPUT_WINDOW_BYTES:
            raise ProtocolError(f"the guest agent gives {count} bytes of credit", why="that many are not under way")
        self._free += count
        self._wake()

    def close(self) -> None:
        self._open = False
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def take(self, most: int) -> int:
        """Take up to `most` bytes of it; waits while there are none. 0: it is closed."""
        while self._open and self._free == 0:
            await self._changed.wait()
        if not self._open:
            return 0
        length = min(most, self._free)
        self._free -= length
        return length


class CommandStream:
    """The stream of an EXEC."""

    def __init__(self, request: Exec, output: OutputSink) -> None:
        self.reply: Reply[Exited] = Reply()
        self.started: Reply[None] = _Started()
        self.sink_error: MetalmarkError | None = None
        self._output = output
        self._left = {Stream.STDOUT: request.stream_bytes, Stream.STDERR: request.stream_bytes}
        self._window = _Window()
        self._takes_input = request.stdin

    def take(self, frame: Frame) -> None:
        """Take a frame in.

        Raises:
            ProtocolError: It is not one that this stream may receive now.
        """
        match frame.kind:
            case Kind.STARTED if not self.started.is_set:
                self.started.set(None)
            case Kind.STDOUT:
                self._take_output(Stream.STDOUT, frame.payload)
            case Kind.STDERR:
                self._take_output(Stream.STDERR, frame.payload)
            case Kind.CREDIT if self._takes_input:
                self._window.add(credit_of(frame.payload))
            case Kind.EXITED:
                self.reply.set(Exited.parse(frame.payload))
            case _:
                raise ProtocolError(f"the guest agent sends type {frame.kind:#x} on a command's stream")

    def _take_output(self, stream: Stream, data: bytes) -> None:
        self._left[stream] -= len(data)
        if self._left[stream] < 0:
            raise ProtocolError(f"the guest agent sends more of {stream} than it was asked for")
        if self.sink_error is None and data:
            try:
                self._output(stream, data)
            except MetalmarkError as error:
                self.sink_error = error  # for who waits for this command; the others go on

    async def take_window(self, most: int) -> int:
        """How many bytes may be sent now, at most `most`; 0: the stream has ended."""
        return await self._window.take(most)

    def wake(self) -> None:
        """The stream has ended: let everybody who waits on it go on."""
        self._window.close()
        self.started.set(None)


class _Started(Reply[None]):
    async def wait(self) -> None:
        await self._event.wait()


class TransferStream:
    """The stream of a GET or PUT."""

    def __init__(self, data: DataSink | None, most_bytes: int) -> None:
        self.reply: Reply[Done] = Reply()
        self.sink_error: MetalmarkError | None = None
        self._data = data
        self._left = most_bytes
        self._window = _Window()

    @classmethod
    def for_get(cls, request: Get, data: DataSink) -> TransferStream:
        """A stream that brings files."""
        return cls(data, request.max_bytes + (request.max_files + 2) * _HEADERS_BYTES)

    @classmethod
    def for_put(cls) -> TransferStream:
        """A stream that takes files."""
        return cls(None, 0)

    def take(self, frame: Frame) -> None:
        """Take a frame in.

        Raises:
            ProtocolError: It is not one that this stream may receive now.
        """
        match frame.kind:
            case Kind.DATA if self._left > 0:
                self._take_data(frame.payload)
            case Kind.CREDIT if self._data is None:
                self._window.add(credit_of(frame.payload))
            case Kind.DONE:
                self.reply.set(Done.parse(frame.payload))
            case _:
                raise ProtocolError(f"the guest agent sends type {frame.kind:#x} on a transfer's stream")

    def _take_data(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            raise ProtocolError("the guest agent sends more files than it was asked for")
        if self._data is not None and self.sink_error is None:
            try:
                self._data(data)
            except MetalmarkError as error:
                self.sink_error = error

    async def take_window(self, most: int) -> int:
        """How many bytes may be sent now, at most `most`; 0: the stream has ended."""
        return await self._window.take(most)

    def abandon(self) -> None:
        """Nobody wants what still comes."""
        self._data = _nowhere if self._data is not None else None

    def wake(self) -> None:
        """The stream has ended: let everybody who waits on it go on."""
        self._window.close()


def _nowhere(data: bytes) -> None:
    del data
