"""The WebSocket protocol of the server's own making where the application interface has no word for something.

It is uvicorn's, and beside that it lets a channel ping its client, tells when the last frame came, bounds how many
fragments a message may have, and says goodbye at a stop of the server. An application finds it as a `Link` under
`EXTENSION` of the scope's extensions; served by another protocol, it does without.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from secrets import token_bytes
from typing import TYPE_CHECKING, Protocol, cast

from websockets.frames import Frame

from metalmark.server.connection import BoundedChannel
from metalmark.wire import FRAME_MAX_BYTES, SUBPROTOCOL

if TYPE_CHECKING:
    # What the base class declares; the public package of these types has another one.
    from uvicorn._types import ASGISendEvent

EXTENSION = "metalmark.link"
GOING_AWAY = 1001
TOO_BIG = 1009
STOPPING = "server shutting down"
FRAGMENTS_MAX = 16_384
"""Most fragments of one message: empty ones cost memory that the bound on its bytes does not see."""

LINGER_S = 5.0
"""How long a client that broke the protocol may go on sending into the void."""


class Link(Protocol):
    """What a channel may ask of the connection below it."""

    async def ping(self, timeout_s: float) -> bool:
        """Send a ping, and return whether the pong, or anything else, came in time."""
        ...

    def last_frame_s(self) -> float:
        """Return when the last frame of any kind came, on the event loop's clock, in seconds."""
        ...

    def abort(self) -> None:
        """Cut the connection without a word: for a peer that does not read."""
        ...


def link_of(extensions: object) -> Link | None:
    """Return the link below a connection, or None where the server runs on another protocol."""
    return cast("Link | None", extensions.get(EXTENSION)) if isinstance(extensions, Mapping) else None


class SocketProtocol(BoundedChannel):
    """One connection that became, or becomes, a WebSocket. Give the class to uvicorn as its ``ws``."""

    _last_frame_s = 0.0
    _fragments = 0
    _deaf = False

    def data_received(self, data: bytes) -> None:
        """Take in bytes; of a client that broke the protocol none any more."""
        if not self._deaf:
            super().data_received(data)

    def handle_parser_exception(self) -> None:
        """Say goodbye to a client that broke the protocol, in a way that it hears.

        A connection that is closed while there is more to read is reset, and that takes the close frame along.
        """
        assert self.conn.close_sent is not None
        sent = self.conn.close_sent
        self.queue.put_nowait({"type": "websocket.disconnect", "code": sent.code, "reason": sent.reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self._deaf = True
        # The application's end would close the connection at once if there were no such timer.
        self.close_timer = self.loop.call_later(LINGER_S, self.transport.abort)

    def handle_events(self) -> None:
        """Take what came, count fragments, and note the time."""
        self._last_frame_s = self.loop.time()
        super().handle_events()

    def handle_connect(self, event: object) -> None:
        """Begin the handshake; the application is started, and runs only after this returns."""
        self._pongs: dict[bytes, asyncio.Future[None]] = {}
        super().handle_connect(event)  # type: ignore[arg-type]  # the library's Request, which is not re-exported
        scope = getattr(self, "scope", None)
        if scope is not None:
            scope["extensions"][EXTENSION] = self
            if SUBPROTOCOL in scope["subprotocols"]:
                # Whoever offers it gets it, and its bound holds from the first byte of the first message on.
                self.conn.max_message_size = min(self.config.ws_max_size, FRAME_MAX_BYTES)

    async def send(self, message: ASGISendEvent) -> None:
        """Send what the application says."""
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            # A handshake that was refused is complete too; else each of them is logged as a fault of the application.
            self.handshake_complete = True

    def handle_text(self, event: Frame) -> None:
        """Take the first frame of a text."""
        self._fragments = 1
        super().handle_text(event)

    def handle_bytes(self, event: Frame) -> None:
        """Take the first frame of a binary message."""
        self._fragments = 1
        super().handle_bytes(event)

    def handle_cont(self, event: Frame) -> None:
        """Take a further frame of a message, or give up on a message of too many."""
        self._fragments += 1
        if self._fragments <= FRAGMENTS_MAX:
            super().handle_cont(event)
        elif not self.close_sent:
            self.frames = []
            self.conn.fail(TOO_BIG, "too many fragments")
            self.handle_parser_exception()

    def handle_pong(self, event: Frame) -> None:
        """Wake whoever pinged."""
        pong = self._pongs.pop(bytes(event.data), None)
        if pong is not None and not pong.done():
            pong.set_result(None)
        else:
            super().handle_pong(event)

    def keepalive_timeout(self) -> None:
        """End a connection that was silent since the last ping; one that sends a long message is not."""
        if self.read_paused or self._last_frame_s > self.ping_sent_at:
            self.pong_timer = None
            self.pending_ping_payload = None
            self.schedule_ping()
        else:
            super().keepalive_timeout()

    async def ping(self, timeout_s: float) -> bool:
        """Send a ping, and return whether the pong, or anything else, came in time."""
        if self.disconnected or self.close_sent or self.transport.is_closing():
            return False
        if self.read_paused:
            # A message that came is still being worked on, and a pong would wait behind it.
            return True
        payload = token_bytes(8)
        self._pongs[payload] = self.loop.create_future()
        before_s = self._last_frame_s
        self.conn.send_ping(payload)
        self.transport.write(b"".join(self.conn.data_to_send()))
        try:
            async with asyncio.timeout(timeout_s):
                await self._pongs[payload]
        except TimeoutError:
            return self._last_frame_s > before_s
        finally:
            self._pongs.pop(payload, None)
        return True

    def last_frame_s(self) -> float:
        """Return when the last frame of any kind came, on the event loop's clock, in seconds."""
        return self._last_frame_s

    def abort(self) -> None:
        """Cut the connection without a word."""
        self.transport.abort()

    def shutdown(self) -> None:
        """Tell the client that the server stops, and the application that the connection is over."""
        if not self.handshake_complete or self.close_sent:
            super().shutdown()
            return
        self.stop_keepalive()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": GOING_AWAY})
        self.conn.send_close(GOING_AWAY, STOPPING)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.transport.close()
