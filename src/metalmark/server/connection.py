"""Connections with deadlines: uvicorn's protocols wait without end for a request's head and for slow readers."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, ClassVar, cast
from uuid import uuid4

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from metalmark.server.errors import error_body
from metalmark.server.file_sending import with_files

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import RequestResponseCycle


class _Cut:
    """A timer that cuts a connection without waiting for what could not be sent."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None

    def arm(self, transport: asyncio.BaseTransport) -> None:
        if self._timer is None and isinstance(transport, asyncio.WriteTransport):
            self._timer = asyncio.get_running_loop().call_later(self._seconds, transport.abort)

    def disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class BoundedHttp(H11Protocol):
    """HTTP/1.1 that is cut when a request's head, or the client's reading of an answer, takes too long."""

    head_timeout_s: ClassVar[float] = 30
    write_timeout_s: ClassVar[float] = 60

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in the base class
        """Wait for the first request."""
        super().connection_made(transport)
        self._upgraded = False
        self._head = _Cut(self.head_timeout_s)
        self._write = _Cut(self.write_timeout_s)
        self._head.arm(transport)
        # The kernel cannot send a file through TLS that it knows nothing of.
        if transport.get_extra_info("sslcontext") is None:
            self.app = with_files(self, self.app, timeout_s=self.write_timeout_s)

    def data_received(self, data: bytes) -> None:
        """Read a piece of a request."""
        super().data_received(data)
        if self._upgraded:
            return
        # There is none before the first request, whatever the base class declares.
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if cycle is None or cycle.response_complete:
            # The head of a request has begun, and uvicorn has taken back its own timer for idle connections.
            self._head.arm(self.transport)
        else:
            self._head.disarm()

    def on_response_complete(self) -> None:
        """Go on to the next request."""
        self._head.disarm()
        super().on_response_complete()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the connection over to the protocol of channels."""
        self._upgraded = True
        self._head.disarm()
        super().handle_websocket_upgrade(event)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP with the body that all errors have."""
        request_id = str(uuid4())
        body = json.dumps(error_body(request_id, msg)).encode("ascii")
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode("ascii")),
            (b"x-request-id", request_id.encode("ascii")),
            (b"connection", b"close"),
        ]
        for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event))
        self.transport.close()

    def pause_writing(self) -> None:
        """Start to wait for a reader that is behind."""
        super().pause_writing()
        self._write.arm(self.transport)

    def resume_writing(self) -> None:
        """Stop waiting: the reader has caught up."""
        super().resume_writing()
        self._write.disarm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go."""
        self._head.disarm()
        self._write.disarm()
        super().connection_lost(exc)


class BoundedChannel(WebSocketsSansIOProtocol):
    """A WebSocket that is cut when its reader takes too long."""

    write_timeout_s: ClassVar[float] = 60

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with the handshake."""
        super().connection_made(transport)
        self._write = _Cut(self.write_timeout_s)

    def pause_writing(self) -> None:
        """Start to wait for a reader that is behind."""
        super().pause_writing()
        self._write.arm(self.transport)

    def resume_writing(self) -> None:
        """Stop waiting: the reader has caught up."""
        super().resume_writing()
        self._write.disarm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go."""
        self._write.disarm()
        super().connection_lost(exc)
