"""One runner's WebSocket with bounds in time: texts in, messages out, and a close frame at every end."""

from __future__ import annotations

from enum import Enum

import anyio
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from metalmark.server.socket_protocol import Link, link_of
from metalmark.wire import Body, channel_text

NORMAL = 1000
GOING_AWAY = 1001
PROTOCOL_ERROR = 1002
TOO_BIG = 1009
INTERNAL_ERROR = 1011
TRY_AGAIN = 1013
DISMISSED = 4401
"""The runner was archived, or has another key now: an open channel ends as a new one would not begin."""
REPLACED = 4409
"""The runner opened another connection."""
_WRITE_TIMEOUT_S = 30.0
_REASON_MAX_BYTES = 120


class Gone(Exception):
    """The connection is over, whoever ended it."""


class Silence(Enum):
    """What was received when it was no text."""

    TIMEOUT = "timeout"
    """Nothing came in time."""
    BINARY = "binary"
    """A binary message came, which means nothing here."""


class ChannelWire:
    """The connection of one runner.

    Args:
        socket: Accepted already.
    """

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._link: Link | None = link_of(socket.scope.get("extensions"))

    async def receive(self, within_s: float) -> str | Silence:
        """Return the next text.

        Raises:
            Gone: The connection is over.
        """
        with anyio.move_on_after(max(0.0, within_s)):
            event = await self._socket.receive()
            if event["type"] == "websocket.disconnect":
                raise Gone
            text: str | None = event.get("text")
            return Silence.BINARY if text is None else text
        return Silence.TIMEOUT

    def silent_s(self) -> float | None:
        """Return for how many seconds no frame of any kind came; None where that is not known."""
        return None if self._link is None else anyio.current_time() - self._link.last_frame_s()

    async def send(self, message: Body) -> None:
        """Send a message.

        Raises:
            Gone: The connection is over, or was cut because the runner did not read.
        """
        await self._bounded(message)

    async def _bounded(self, message: Body) -> None:
        try:
            with anyio.fail_after(_WRITE_TIMEOUT_S):
                await self._socket.send_text(channel_text(message))
        except TimeoutError:
            if self._link is not None:
                self._link.abort()
            raise Gone from None
        except (WebSocketDisconnect, RuntimeError, OSError) as error:
            # The framework's answer to a message after the close, by whichever side.
            raise Gone from error

    async def close(self, code: int, reason: str) -> None:
        """Send a close frame; nothing when the connection is over already. The receiver sees `Gone`."""
        if self._socket.application_state is not WebSocketState.CONNECTED:
            return
        short = reason.encode()[:_REASON_MAX_BYTES].decode("utf-8", "ignore")
        try:
            with anyio.fail_after(_WRITE_TIMEOUT_S):
                await self._socket.close(code, short)
        except TimeoutError:
            if self._link is not None:
                self._link.abort()
        except (WebSocketDisconnect, RuntimeError, OSError):
            return

    async def answers(self, within_s: float) -> bool:
        """Ping the runner, and return whether it gave a sign of life in time. Not known is no."""
        return self._link is not None and await self._link.ping(within_s)
