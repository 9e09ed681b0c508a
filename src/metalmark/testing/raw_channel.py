"""A WebSocket client that sends frames exactly as it is told, wrong ones too, and shows each that comes back."""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


@dataclass(frozen=True, kw_only=True)
class ReceivedFrame:
    """A frame of the server."""

    opcode: int
    payload: bytes

    @property
    def close_code(self) -> int:
        """Code of a close frame; 1005 when it has none."""
        return struct.unpack_from("!H", self.payload)[0] if len(self.payload) >= 2 else 1005

    @property
    def close_reason(self) -> str:
        """Reason of a close frame."""
        return self.payload[2:].decode()


class HandshakeRefused(Exception):
    """The server did not upgrade the connection.

    Args:
        status: Its status.
        headers: Its headers, names in lower case.
        body: What came with it.
    """

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(f"{status} {body[:200]!r}")
        self.status = status
        self.headers = headers
        self.body = body


class Dropped(Exception):
    """The connection ended without a close frame."""


class RawChannel:
    """An upgraded connection.

    Args:
        url: The server's, ``http://HOST:PORT``.
        path: Of the channel.
        headers: Beside those of the handshake; one of its own is replaced, and left out when empty.
        timeout_s: Of every wait.
    """

    def __init__(self, url: str, path: str, headers: Mapping[str, str], *, timeout_s: float = 20.0) -> None:
        place = urlsplit(url)
        self.socket = socket.create_connection((place.hostname or "", place.port or 80), timeout=timeout_s)
        self._buffer = b""
        try:
            self.headers = self._upgrade(place.netloc, path, headers)
        except BaseException:
            self.socket.close()
            raise

    def _upgrade(self, host: str, path: str, headers: Mapping[str, str]) -> dict[str, str]:
        said = {
            "Host": host,
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
            **headers,
        }
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in said.items() if value)]
        self.socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *rest = head.decode("latin-1").split("\r\n")
        answered = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
        status = int(first.split()[1])
        if status != 101:
            length = int(answered.get("content-length", "0"))
            while len(self._buffer) < length:
                self._more()
            raise HandshakeRefused(status, answered, self._buffer)
        return answered

    def _more(self) -> None:
        try:
            received = self.socket.recv(65536)
        except ConnectionError as error:
            raise Dropped from error
        if not received:
            raise Dropped
        self._buffer += received

    def send_frame(self, opcode: int, payload: bytes, *, final: bool = True, masked: bool = True) -> None:
        """Send one frame."""
        head = bytes([(0x80 if final else 0) | opcode])
        mask_bit = 0x80 if masked else 0
        if len(payload) < 126:
            head += bytes([mask_bit | len(payload)])
        elif len(payload) < 65536:
            head += bytes([mask_bit | 126]) + struct.pack("!H", len(payload))
        else:
            head += bytes([mask_bit | 127]) + struct.pack("!Q", len(payload))
        if not masked:
            self.socket.sendall(head + payload)
            return
        key = os.urandom(4)
        width = len(payload)
        stream = (key * (width // 4 + 1))[:width]
        mixed = int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")
        self.socket.sendall(head + key + mixed.to_bytes(width, "big"))

    def send_text(self, text: str) -> None:
        """Send a text in one frame."""
        self.send_frame(TEXT, text.encode())

    def say(self, message: Mapping[str, Any] | None = None, **fields: object) -> None:
        """Send a message as JSON."""
        self.send_text(json.dumps({**(message or {}), **fields}))

    def frame(self, *, within_s: float | None = None) -> ReceivedFrame:
        """Return the next frame.

        Raises:
            Dropped: The connection ended instead.
            TimeoutError: None came.
        """
        if within_s is not None:
            self.socket.settimeout(within_s)
        first = self._take(2)
        length = first[1] & 0x7F
        if length == 126:
            length = struct.unpack("!H", self._take(2))[0]
        elif length == 127:
            length = struct.unpack("!Q", self._take(8))[0]
        return ReceivedFrame(opcode=first[0] & 0x0F, payload=self._take(length))

    def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._more()
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def hear(self, *, within_s: float | None = None) -> dict[str, Any]:
        """Return the next message, answering pings on the way.

        Raises:
            AssertionError: Something else came, a close frame for instance.
            Dropped: The connection ended instead.
            TimeoutError: None came.
        """
        while True:
            frame = self.frame(within_s=within_s)
            if frame.opcode == PING:
                self.send_frame(PONG, frame.payload)
                continue
            if frame.opcode != TEXT:
                raise AssertionError(f"not a message: {frame}")
            message: dict[str, Any] = json.loads(frame.payload)
            return message

    def is_silent(self, for_s: float) -> bool:
        """Whether nothing comes for so long."""
        before = self.socket.gettimeout()
        try:
            self.socket.settimeout(for_s)
            self._more()
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(before)
        return False

    def closed(self, *, within_s: float | None = None) -> ReceivedFrame:
        """Return the close frame that comes next, pings aside.

        Raises:
            AssertionError: Something else came.
            Dropped: The connection ended without one.
        """
        while True:
            frame = self.frame(within_s=within_s)
            if frame.opcode == CLOSE:
                return frame
            if frame.opcode != PING:
                raise AssertionError(f"not a close frame: {frame}")

    def cut(self) -> None:
        """End the connection with a reset, as a runner does that loses power behind a router that notices."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()


@contextmanager
def raw_channel(url: str, runner: object, key: str, **headers: str) -> Iterator[RawChannel]:
    """Open the channel of a runner, as a public one does; further headers by name."""
    with RawChannel(url, f"/v0/runners/{runner}/channel", {"Authorization": f"Bearer {key}", **headers}) as channel:
        yield channel
