"""The host's side of the channel to a guest agent: one byte stream, many commands and transfers.

What comes from the guest is untrusted. Every frame is checked against what its stream may receive at that moment; a
stream's bytes are bounded by what was asked for; nothing is stored but one incomplete frame. Whatever breaks the
rules ends the connection with `ProtocolError`, which each caller that waits gets to see.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterable, Callable
from contextlib import suppress
from dataclasses import dataclass

import anyio
from anyio.abc import ByteStream

from metalmark.model import BoxLost, MetalmarkError, NoPermission, NoSpace, PhaseTimeout, ProtocolError, StableError
from metalmark.sandbox.agent_stream import CommandStream, Reply, TransferStream
from metalmark.sandbox.port import DataSink, Execution, OutputSink
from metalmark.wire import (
    INPUT_WINDOW_BYTES,
    Clock,
    Done,
    Exec,
    Exited,
    Fault,
    Frame,
    FrameDecoder,
    Get,
    Hello,
    Kind,
    Put,
    Ready,
    Setup,
    encode,
    signal_frame,
)

_RECEIVE_BYTES = 256 * 1024
_SEND_LIMIT_S = 30.0
_ANSWER_LIMIT_S = 30.0
_SIGKILL = 9


@dataclass(frozen=True, kw_only=True)
class _Closed:
    """How a connection ended."""

    error: MetalmarkError


class AgentExecution(Execution):
    """A command that runs in a box, over its stream."""

    def __init__(self, connection: AgentConnection, number: int, stream: CommandStream) -> None:
        self._connection = connection
        self._number = number
        self._stream = stream

    async def started(self) -> None:
        """Wait until the program runs, or the command has ended without, or the connection has ended."""
        await self._stream.started.wait()

    async def wait(self) -> Exited:
        """Wait for the end of the command and of all its descendants.

        Raises:
            BoxLost: The box went away first.
            ProtocolError: The agent broke the protocol.
            MetalmarkError: What the output's taker raised; or a request that the agent could not carry out.
        """
        exited = await self._stream.reply.wait()
        if self._stream.sink_error is not None:
            raise self._stream.sink_error
        return exited

    async def signal(self, number: int) -> None:
        """Send a signal to every process of the command; nothing happens when it has ended."""
        if not self._stream.reply.is_set:
            with suppress(BoxLost, ProtocolError):  # whoever waits for the command learns of it
                await self._connection.send(signal_frame(self._number, number))

    async def write(self, data: bytes) -> None:
        """Feed stdin; waits while the command does not read, and drops what comes after its end."""
        await self._connection.feed(self._number, self._stream, data)

    async def close_stdin(self) -> None:
        """End stdin."""
        if not self._stream.reply.is_set:
            with suppress(BoxLost, ProtocolError):
                await self._connection.send(Frame(kind=Kind.INPUT, stream=self._number))


class AgentConnection:
    """A connection to one agent. `serve` must run, in a task group, for as long as it is used.

    Args:
        stream: The channel; closed when `serve` ends.
    """

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._sending = anyio.Lock()
        self._next = 1
        self._streams: dict[int, CommandStream | TransferStream] = {}
        self._hello: Reply[Hello] = Reply()
        self._ready: Reply[Ready] | None = None
        self._clocks: list[Reply[Clock]] = []
        self._closed: _Closed | None = None
        self._ended = anyio.Event()

    @property
    def lost(self) -> MetalmarkError | None:
        """Why the connection ended; None while it holds."""
        return self._closed.error if self._closed else None

    async def serve(self) -> None:
        """Read frames until the channel ends or the agent breaks the protocol. Never raises; see `lost`."""
        decoder = FrameDecoder()
        try:
            while True:
                data = await self._stream.receive(_RECEIVE_BYTES)
                for frame in decoder.feed(data):
                    self._take(frame)
        except ProtocolError as error:
            self._fail(error)
        except (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError, OSError):
            cut = " within a frame" if decoder.pending_bytes else ""
            self._fail(BoxLost(f"the guest agent's channel ended{cut}"))
        finally:
            self._fail(BoxLost("the connection to the guest agent was closed"))
            self._ended.set()
            with anyio.CancelScope(shield=True), anyio.move_on_after(1):
                await self._stream.aclose()

    async def ended(self) -> None:
        """Wait until `serve` has ended."""
        await self._ended.wait()

    async def close(self) -> None:
        """Close the channel; `serve` ends."""
        self._fail(BoxLost("the connection to the guest agent was closed"))
        await self._stream.aclose()

    async def hello(self) -> Hello:
        """Wait for the agent's greeting.

        Raises:
            BoxLost, ProtocolError
        """
        return await self._hello.wait()

    async def setup(self, setup: Setup) -> Ready:
        """Have the agent make the box ready for commands.

        Raises:
            BoxLost, ProtocolError, StableError
        """
        self._ready = Reply()
        await self.send(setup.frame())
        return await self._ready.wait()

    async def exec(self, request: Exec, output: OutputSink) -> AgentExecution:
        """Start a command. Output goes to the sink as it comes.

        Raises:
            BoxLost, ProtocolError
        """
        stream = CommandStream(request, output)
        number = self._add(stream)
        await self.send(request.frame(number))
        return AgentExecution(self, number, stream)

    async def get(self, request: Get, data: DataSink) -> Done:
        """Fetch files as a tar stream.

        Raises:
            BoxLost, ProtocolError, NoPermission, StableError: The agent could not; or what the sink raised.
        """
        stream = TransferStream.for_get(request, data)
        number = self._add(stream)
        return await self._transfer(number, stream, request.frame(number), None)

    async def put(self, request: Put, chunks: AsyncIterable[bytes]) -> Done:
        """Unpack a tar stream in the box.

        Raises:
            BoxLost, ProtocolError, NoSpace, NoPermission, StableError: The agent could not.
        """
        stream = TransferStream.for_put()
        number = self._add(stream)
        return await self._transfer(number, stream, request.frame(number), chunks)

    async def clock(self) -> Clock:
        """Read the guest's clocks.

        Raises:
            BoxLost, ProtocolError, PhaseTimeout
        """
        reply: Reply[Clock] = Reply()
        self._clocks.append(reply)
        await self.send(Frame(kind=Kind.CLOCK, stream=0))
        try:
            with anyio.fail_after(_ANSWER_LIMIT_S):
                return await reply.wait()
        except TimeoutError as error:
            raise PhaseTimeout("clock", _ANSWER_LIMIT_S) from error

    async def poweroff(self) -> None:
        """Ask the agent to end the box; `ended` tells when its channel has gone.

        Raises:
            BoxLost, ProtocolError
        """
        await self.send(Frame(kind=Kind.POWEROFF, stream=0))

    async def send(self, frame: Frame) -> None:
        """Send one frame, whole: a canceled caller must not leave half of one behind.

        Raises:
            BoxLost, ProtocolError: The connection has ended, or the agent does not read.
        """
        data = encode(frame)
        async with self._sending:
            self._check()
            try:
                with anyio.fail_after(_SEND_LIMIT_S, shield=True):
                    await self._stream.send(data)
            except TimeoutError:
                self._fail(BoxLost(f"the guest agent has read nothing for {_SEND_LIMIT_S:g} s"))
            except (anyio.ClosedResourceError, anyio.BrokenResourceError, OSError):
                self._fail(BoxLost("the guest agent's channel ended"))
            self._check()

    async def feed(self, number: int, stream: CommandStream | TransferStream, data: bytes) -> None:
        """Send bytes on a stream, as its window allows; drops them when it has ended."""
        view = memoryview(data)
        while view:
            length = await stream.take_window(min(len(view), INPUT_WINDOW_BYTES))
            if length == 0:
                return
            await self.send(Frame(kind=Kind.INPUT, stream=number, payload=bytes(view[:length])))
            view = view[length:]

    async def _transfer(
        self, number: int, stream: TransferStream, request: Frame, chunks: AsyncIterable[bytes] | None
    ) -> Done:
        await self.send(request)
        try:
            if chunks is not None:
                async for chunk in chunks:
                    if stream.reply.is_set:  # the agent has given up: the rest would go nowhere
                        break
                    await self.feed(number, stream, chunk)
                if not stream.reply.is_set:
                    await self.send(Frame(kind=Kind.INPUT, stream=number))
            done = await stream.reply.wait()
        except BaseException:
            stream.abandon()
            if not stream.reply.is_set and self._closed is None:
                with anyio.CancelScope(shield=True), suppress(MetalmarkError):
                    await self.send(signal_frame(number, _SIGKILL))
            raise
        if stream.sink_error is not None:
            raise stream.sink_error
        return done

    def _add(self, stream: CommandStream | TransferStream) -> int:
        self._check()
        number = self._next
        self._next += 1
        self._streams[number] = stream
        return number

    def _check(self) -> None:
        if self._closed is not None:
            # A fresh one each time: a raised exception collects a traceback for every caller it passes.
            raise type(self._closed.error)(
                self._closed.error.found, why=self._closed.error.why, hint=self._closed.error.hint
            )

    def _fail(self, error: MetalmarkError) -> None:
        if self._closed is not None:
            return
        self._closed = _Closed(error=error)
        streams = [stream.reply for stream in self._streams.values()]
        for reply in (self._hello, self._ready, *self._clocks, *streams):
            if reply is not None:
                reply.fail(error)
        for stream in self._streams.values():
            stream.wake()
        self._streams.clear()
        self._clocks.clear()

    def _take(self, frame: Frame) -> None:
        if self._closed is not None:
            return
        if frame.stream == 0:
            self._take_box(frame)
            return
        stream = self._streams.get(frame.stream)
        if stream is None:
            if frame.stream < self._next:
                return  # late: both sides may close a stream
            raise ProtocolError(f"the guest agent speaks on stream {frame.stream}", why="nobody has opened it")
        if frame.kind == Kind.FAULT:
            stream.reply.fail(fault_error(Fault.parse(frame.payload)))
        else:
            stream.take(frame)
        if stream.reply.is_set:
            stream.wake()
            del self._streams[frame.stream]

    def _take_box(self, frame: Frame) -> None:
        takers: dict[int, Callable[[bytes], None]] = {
            Kind.HELLO: self._take_hello,
            Kind.READY: self._take_ready,
            Kind.CLOCK_IS: self._take_clock,
            Kind.FAULT: self._take_fault,
        }
        taker = takers.get(frame.kind)
        if taker is None:
            raise ProtocolError(f"the guest agent sends type {frame.kind:#x} for the box", why="that is for a stream")
        taker(frame.payload)

    def _take_hello(self, payload: bytes) -> None:
        if self._hello.is_set:
            raise ProtocolError("the guest agent greets twice")
        self._hello.set(Hello.parse(payload))

    def _take_ready(self, payload: bytes) -> None:
        if self._ready is None or self._ready.is_set:
            raise ProtocolError("the guest agent is ready unasked")
        self._ready.set(Ready.parse(payload))

    def _take_clock(self, payload: bytes) -> None:
        if not self._clocks:
            raise ProtocolError("the guest agent tells the time unasked")
        self._clocks.pop(0).set(Clock.parse(payload))

    def _take_fault(self, payload: bytes) -> None:
        if self._ready is None or self._ready.is_set:
            raise ProtocolError("the guest agent reports a fault of nothing")
        self._ready.fail(fault_error(Fault.parse(payload)))


def fault_error(fault: Fault) -> MetalmarkError:
    """Return the error that stands for a fault of the agent's."""
    message = fault.message[:1000] or "the guest agent could not do it"
    if fault.code in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(message, why="the box's disk is full", hint="give more with --disk")
    if fault.code in (errno.EACCES, errno.EPERM):
        return NoPermission(message)
    return StableError(message)
