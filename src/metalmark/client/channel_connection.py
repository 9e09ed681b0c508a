"""The WebSocket of a runner to its server: texts in both directions, with a deadline on everything."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Never

import anyio

import metalmark
from metalmark.client.proxy import proxy_of
from metalmark.client.settings import ConnectionSettings
from metalmark.client.trust import tls_context
from metalmark.model import ChannelLost, ChannelRefused
from metalmark.system import in_thread

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection
    from websockets.exceptions import ConnectionClosed

MESSAGE_MAX_BYTES = 8 * 1024 * 1024
"""Longest message that is taken: a server of ours sends half of it at most, and others bound what is submitted."""
_ABNORMAL = 1006
_SHOWN = 200


@dataclass(frozen=True, kw_only=True)
class ChannelDeadlines:
    """How long a channel waits. All times in seconds."""

    open_s: float = 30.0
    """For TCP, TLS and the upgrade."""
    send_s: float = 30.0
    """For the peer to make room for one message."""
    ping_every_s: float = 10.0
    ping_within_s: float = 15.0
    """For the answer to a ping. A peer that does not give it is gone, whatever TCP believes."""
    close_s: float = 3.0
    """For the peer's answer to a close frame."""


class ChannelConnection:
    """An open channel. Made by `open_channel`; one task sends at a time, and one receives."""

    def __init__(self, socket: ClientConnection, deadlines: ChannelDeadlines) -> None:
        self._socket = socket
        self._deadlines = deadlines
        self._heard = False

    @property
    def subprotocol(self) -> str | None:
        """What the server agreed on; None: nothing."""
        return self._socket.subprotocol

    @property
    def heard(self) -> bool:
        """Whether anything came over it."""
        return self._heard

    async def send(self, text: str) -> None:
        """Send a message.

        Raises:
            ChannelLost: The connection is over, or the peer made no room for the message in time.
        """
        from websockets.exceptions import ConnectionClosed  # noqa: PLC0415 - loaded already where there is a channel

        try:
            with anyio.fail_after(self._deadlines.send_s):
                await self._socket.send(text)
        except TimeoutError:
            self.abort()
            raise ChannelLost(f"the server took nothing for {self._deadlines.send_s:g} s") from None
        except ConnectionClosed as error:
            self._over(error)

    async def receive(self) -> str:
        """Return the next text. Waits as long as the peer answers pings; messages that are no text are passed over.

        Raises:
            ChannelLost: The connection is over.
        """
        from websockets.exceptions import ConnectionClosed  # noqa: PLC0415 - loaded already where there is a channel

        try:
            while True:
                message = await self._socket.recv()
                self._heard = True
                if isinstance(message, str):
                    return message
        except ConnectionClosed as error:
            self._over(error)

    def abort(self) -> None:
        """End the connection at once, without a word."""
        _abort(self._socket)

    def _over(self, error: ConnectionClosed) -> Never:
        received, sent = error.rcvd, error.sent
        if received is not None:
            reason = f" ({received.reason[:_SHOWN]})" if received.reason else ""
            raise ChannelLost(f"the server closed the channel: {received.code}{reason}", code=received.code) from None
        if sent is not None and error.rcvd_then_sent is None and sent.reason:
            # Ours is the only close frame: the library ended the connection, and says why.
            raise ChannelLost(f"the channel was given up: {sent.reason[:_SHOWN]}", code=_ABNORMAL) from None
        raise ChannelLost("the connection to the server broke", code=_ABNORMAL) from None


@asynccontextmanager
async def open_channel(
    settings: ConnectionSettings,
    runner: str,
    *,
    subprotocols: Sequence[str] = (),
    environment: Mapping[str, str],
    deadlines: ChannelDeadlines | None = None,
) -> AsyncIterator[ChannelConnection]:
    """Open the channel of a runner; it is closed with the context.

    Args:
        settings: The server, the runner's key, whom to trust, proxies.
        runner: UUID or slug of the runner.
        subprotocols: What the runner speaks beside the public messages, best first.
        environment: Where ``SSL_CERT_FILE`` is read.
        deadlines: How long to wait.

    Raises:
        ChannelRefused: The key or the name is wrong, or what answers is no such server, or is not trusted.
        ChannelLost: The server cannot be reached, is busy, or does not answer.
        InputError: A file of certificates or the proxy cannot be used.
    """
    limits = deadlines or ChannelDeadlines()
    socket = await _connected(settings, runner, subprotocols, environment, limits)
    try:
        yield ChannelConnection(socket, limits)
    finally:
        # What was said is on its way; the peer's answer is worth a moment, and not a hang.
        with anyio.CancelScope(shield=True), anyio.move_on_after(limits.close_s):
            # asyncio's own error for a transport that is closed already, which the library closes again.
            with suppress(AttributeError):
                await socket.close()
        _abort(socket)


async def _connected(
    settings: ConnectionSettings,
    runner: str,
    subprotocols: Sequence[str],
    environment: Mapping[str, str],
    limits: ChannelDeadlines,
) -> ClientConnection:
    # Heavy, and asyncio's own: importing this module costs nothing.
    from websockets.exceptions import InvalidHandshake, InvalidStatus, ProxyError  # noqa: PLC0415
    from websockets.typing import Subprotocol  # noqa: PLC0415

    from metalmark.client.channel_opening import Opening  # noqa: PLC0415

    address = settings.address
    url = address.url("runners", runner, "channel")
    secure = address.scheme == "https"
    context = await in_thread(tls_context, settings.trust, environment) if secure else None
    headers = {"Authorization": settings.credential.header} if settings.credential else {}
    opening = Opening(
        f"{'wss' if secure else 'ws'}{url.removeprefix(address.scheme)}",
        subprotocols=[Subprotocol(name) for name in subprotocols] or None,
        additional_headers=headers,
        compression=None,
        user_agent_header=f"metalmark/{metalmark.__version__}",
        proxy=proxy_of(settings),
        open_timeout=limits.open_s,
        ping_interval=limits.ping_every_s,
        ping_timeout=limits.ping_within_s,
        close_timeout=limits.close_s,
        max_size=MESSAGE_MAX_BYTES,
        logger=_silent(),
        ssl=context,
    )
    try:
        return await opening.connect()
    except InvalidStatus as error:
        raise _refusal(settings, error.response.status_code, error.response.headers.get("Retry-After", "")) from None
    except ssl.SSLCertVerificationError as error:
        raise ChannelRefused(
            f"the certificate of {address} is not trusted: {error.verify_message}",
            why="somebody else may answer in its place",
            hint="name the authority that signed it with --ca-file",
        ) from None
    except TimeoutError:
        raise ChannelLost(f"{address} did not answer within {limits.open_s:g} s") from None
    except ProxyError as error:
        raise ChannelLost(f"the proxy does not reach {address}: {error}") from None
    except InvalidHandshake as error:
        raise ChannelLost(f"{address} opened no WebSocket: {error}", hint="see whether --host is right") from None
    except (OSError, EOFError) as error:
        raise ChannelLost(f"{address} cannot be reached: {str(error) or type(error).__name__}") from None


def _refusal(settings: ConnectionSettings, status: int, retry_after: str) -> ChannelRefused | ChannelLost:
    address = settings.address
    asked_s = float(retry_after) if retry_after.isascii() and retry_after.isdigit() and len(retry_after) < 10 else None
    if status in {408, 425, 429} or status >= 500:
        return ChannelLost(f"{address} answered {status}", code=_ABNORMAL, retry_after_s=asked_s)
    if status == 401:
        return ChannelRefused(
            f"{address} refused the runner's key (401)",
            why="the key is another runner's, was replaced, or the runner is archived",
            hint="make a new one with `metalmark runner key`, and see whether --runner is right",
        )
    if 300 <= status < 400:
        return ChannelRefused(
            f"{address} answers with a redirection ({status})",
            why="a key is not carried to where an answer points",
            hint="name the server itself with --host",
        )
    return ChannelRefused(
        f"{address} does not open the channel: it answered {status}",
        why="a runner's channel is not there, or something between does not let it through",
        hint="see whether --host names the server's API, and --runner its runner; a proxy has to pass on upgrades",
    )


def _abort(socket: ClientConnection) -> None:
    if not socket.transport.is_closing():
        socket.transport.abort()


def _silent() -> logging.Logger:
    """Return a logger that logs nothing: the library's own writes the key into its debug log."""
    logger = logging.getLogger("metalmark.silent")
    logger.disabled = True
    return logger
