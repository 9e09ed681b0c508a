"""Sending files without a byte of them passing through this process: ASGI's extension ``http.response.zerocopysend``.

The kernel takes what it sends straight from its cache of the file (sendfile). A worker thread asks it to, as it may
have to wait for the disk; nothing but the event loop waits for the reader, so that slow ones take no thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import h11
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from metalmark.system import in_thread

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol

ZERO_COPY = "http.response.zerocopysend"
"""Name of the extension, and type of its message: ``file``, ``offset``, ``count`` and ``more_body``."""
_AT_ONCE_BYTES = 4 * 1024 * 1024


def sends_files(scope: Scope) -> bool:
    """Whether the answer to a request may have messages of the type `ZERO_COPY`."""
    return ZERO_COPY in scope.get("extensions", {})


def with_files(protocol: H11Protocol, app: Callable[..., Any], *, timeout_s: float) -> ASGIApp:
    """Return an application that may answer on a connection with files.

    Args:
        protocol: The connection. It is not encrypted.
        app: The application.
        timeout_s: How long the reader may take nothing; then the connection is cut.
    """

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_any(message: Message) -> None:
            if message["type"] != ZERO_COPY:
                await send(message)
                return
            await _send_file(protocol, message["file"], message["offset"], message["count"], timeout_s)
            if not message.get("more_body", False):
                await send({"type": "http.response.body", "body": b""})

        scope.setdefault("extensions", {})[ZERO_COPY] = {}
        await app(scope, receive, send_any)

    return serve


async def _send_file(protocol: H11Protocol, file: IO[bytes], offset: int, count: int, timeout_s: float) -> None:
    transport = protocol.transport
    transport.set_write_buffer_limits(high=0)
    try:
        # What went before has to be the kernel's first.
        await protocol.flow.drain()
        if protocol.cycle.disconnected:
            return
        # The connection's state has to know what it never sees.
        protocol.conn.send_with_data_passthrough(h11.Data(data=_Span(count)))  # type: ignore[arg-type]  # only measured
        # The event loop watches the socket itself for the transport, so it is waited for by another name.
        socket = os.dup(transport.get_extra_info("socket").fileno())
        try:
            while count and not protocol.cycle.disconnected:
                sent = await _send_some(socket, file, offset, count, timeout_s)
                if sent is None:
                    transport.abort()
                    # The connection learns that it is lost before anybody sends more.
                    await anyio.lowlevel.checkpoint()
                    return
                offset, count = offset + sent, count - sent
        finally:
            os.close(socket)
    finally:
        transport.set_write_buffer_limits()


async def _send_some(socket: int, file: IO[bytes], offset: int, count: int, timeout_s: float) -> int | None:
    """Send what the reader takes now, or wait until it takes something.

    Returns:
        How many bytes were sent; None when the connection is of no more use.
    """
    try:
        # Where the file is shorter than was announced, the rest will never come.
        return await in_thread(os.sendfile, socket, file.fileno(), offset, min(count, _AT_ONCE_BYTES)) or None
    except BlockingIOError:
        with anyio.move_on_after(timeout_s) as waiting:
            await anyio.wait_writable(socket)
        return None if waiting.cancelled_caught else 0
    except OSError:
        # Reset by the client, or the disk cannot be read.
        return None


class _Span:
    """Stands for bytes that are counted only."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length
