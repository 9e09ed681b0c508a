"""A byte stream whose other side connects later: what a guest's agent does over vsock once its kernel has booted."""

from __future__ import annotations

import socket

import anyio
from anyio.abc import ByteStream, UNIXSocketStream


class AwaitedStream(ByteStream):
    """A listening socket that turns into the first connection made to it, when it is read.

    Args:
        listener: A listening unix socket; owned from now on.
    """

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._stream: UNIXSocketStream | None = None
        self._closed = False
        listener.setblocking(False)  # noqa: FBT003 - the method takes it by position only

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Wait for the connection, then for bytes.

        Raises:
            ClosedResourceError: Closed, also while waiting.
            EndOfStream, BrokenResourceError
        """
        return await (await self._connected()).receive(max_bytes)

    async def send(self, item: bytes) -> None:
        """Send.

        Raises:
            ClosedResourceError: Closed, or nobody has connected yet: the other side speaks first.
            BrokenResourceError
        """
        await self._made().send(item)

    async def send_eof(self) -> None:
        """End the sending direction."""
        await self._made().send_eof()

    async def aclose(self) -> None:
        """Close the connection, or stop waiting for it; safe to repeat."""
        if not self._closed:
            self._closed = True
            anyio.notify_closing(self._listener)
            self._listener.close()
        if self._stream is not None:
            await self._stream.aclose()

    def _made(self) -> UNIXSocketStream:
        if self._stream is None:
            raise anyio.ClosedResourceError
        return self._stream

    async def _connected(self) -> UNIXSocketStream:
        if self._stream is None:
            if self._closed:
                raise anyio.ClosedResourceError
            await anyio.wait_readable(self._listener)
            self._stream = await UNIXSocketStream.from_socket(self._listener.accept()[0])
        return self._stream
