"""A guest agent that says what a test has it say, over a stream in memory."""

from __future__ import annotations

import math

import anyio
from anyio.abc import ByteStream
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from metalmark.wire import (
    PROTOCOL,
    Ending,
    ExitTag,
    Frame,
    FrameDecoder,
    HelloTag,
    Kind,
    ReadyTag,
    encode,
    pack,
)


class MemoryStream(ByteStream):
    """One end of a byte stream in memory. Sending blocks once the other end has `pieces` of it unread."""

    def __init__(self, sends: MemoryObjectSendStream[bytes], receives: MemoryObjectReceiveStream[bytes]) -> None:
        self._sends = sends
        self._receives = receives
        self._rest = b""

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Take what has come, at most `max_bytes`."""
        if not self._rest:
            self._rest = await self._receives.receive()
        data, self._rest = self._rest[:max_bytes], self._rest[max_bytes:]
        return data

    async def send(self, item: bytes) -> None:
        """Hand bytes to the other end."""
        await self._sends.send(bytes(item))

    async def send_eof(self) -> None:
        """Say that nothing more comes."""
        self._sends.close()

    async def aclose(self) -> None:
        """Close this end."""
        self._sends.close()
        self._receives.close()


def memory_streams(pieces: float = math.inf) -> tuple[MemoryStream, MemoryStream]:
    """Return the two ends of a stream that holds `pieces` unread sends in each direction."""
    first_sends, second_receives = anyio.create_memory_object_stream[bytes](pieces)
    second_sends, first_receives = anyio.create_memory_object_stream[bytes](pieces)
    return MemoryStream(first_sends, first_receives), MemoryStream(second_sends, second_receives)


class FakeAgent:
    """The guest's end of a channel; `stream` is the host's."""

    def __init__(self, *, pieces: float = math.inf) -> None:
        self.stream, self._own = memory_streams(pieces)
        self._decoder = FrameDecoder()
        self._taken: list[Frame] = []

    async def send(self, kind: int, stream: int = 0, payload: bytes = b"") -> None:
        """Send a frame of any kind."""
        await self._own.send(encode(Frame(kind=kind, stream=stream, payload=payload)))

    async def send_bytes(self, data: bytes) -> None:
        """Send bytes that need not be a frame."""
        await self._own.send(data)

    async def receive(self) -> Frame:
        """Take the host's next frame."""
        while not self._taken:
            self._taken.extend(self._decoder.feed(await self._own.receive()))
        return self._taken.pop(0)

    async def greet(self, *, protocol: int = PROTOCOL, monotonic_ns: int = 1_000) -> None:
        """Send HELLO."""
        tag = HelloTag
        fields: list[tuple[int, bytes | int]] = [(tag.PROTOCOL, protocol), (tag.MONOTONIC_NS, monotonic_ns)]
        fields += [(tag.ARCHITECTURE, b"x86_64"), (tag.KERNEL, b"6.1-fake"), (tag.CPUS, 1), (tag.AGENT, b"fake")]
        await self.send(Kind.HELLO, payload=pack(fields))

    async def set_up(self, *, monotonic_ns: int = 5_000) -> Frame:
        """Greet, wait for SETUP and answer READY; returns the SETUP."""
        await self.greet()
        setup = await self.receive()
        ready: list[tuple[int, bytes | int]] = [(ReadyTag.MONOTONIC_NS, monotonic_ns), (ReadyTag.MEMORY_MAX_BYTES, 7)]
        await self.send(Kind.READY, payload=pack(ready))
        return setup

    async def exit(self, stream: int, code: int = 0, *, ending: Ending = Ending.EXITED) -> None:
        """Send EXITED."""
        await self.send(Kind.EXITED, stream, pack([(ExitTag.ENDING, int(ending)), (ExitTag.CODE, code)]))

    async def hang_up(self) -> None:
        """Close the channel."""
        await self._own.aclose()
