"""Server-sent events (WHATWG HTML, section 9.2), as they come in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from metalmark.model import ProtocolError

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""The longest event that is taken: a server sends output in chunks far below this."""


@dataclass(frozen=True, kw_only=True)
class ServerEvent:
    """One event."""

    kind: str
    """Its ``event`` field, ``message`` when there is none."""
    data: str
    """Its ``data`` lines, with line feeds between."""
    id: str
    """The last ``id`` that was sent; by it a stream goes on where it broke off. Empty when there was none."""


class EventParser:
    """Makes events of bytes. An event that the stream breaks off in is none."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._data: list[str] = []
        self._data_bytes = 0
        self._kind = ""
        self._id = ""
        self._first = True
        self.retry_s: float | None = None
        """How long the server wants a client to wait before it connects again; None until it says so."""

    def feed(self, piece: bytes) -> Iterator[ServerEvent]:
        """Take a piece of the stream and yield the events that it completes.

        Raises:
            ProtocolError: An event is longer than `MAX_EVENT_BYTES`.
        """
        self._pending += piece
        for line in self._lines():
            event = self._take(line)
            if event is not None:
                yield event
        if len(self._pending) + self._data_bytes > MAX_EVENT_BYTES:
            raise ProtocolError(f"an event is longer than {MAX_EVENT_BYTES} bytes")

    def _lines(self) -> Iterator[str]:
        start = 0
        while True:
            ends = [at for at in (self._pending.find(b"\n", start), self._pending.find(b"\r", start)) if at >= 0]
            # A carriage return at the very end may be half of a line's end.
            if not ends or (self._pending[min(ends)] == 0x0D and min(ends) + 1 == len(self._pending)):
                break
            end = min(ends)
            line = self._pending[start:end].decode("utf-8", errors="replace")
            start = end + (2 if self._pending[end : end + 2] == b"\r\n" else 1)
            if self._first:
                line = line.removeprefix("\ufeff")
                self._first = False
            yield line
        del self._pending[:start]

    def _take(self, line: str) -> ServerEvent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
            self._data_bytes += len(value) + 1
            if self._data_bytes > MAX_EVENT_BYTES:
                raise ProtocolError(f"an event is longer than {MAX_EVENT_BYTES} bytes")
        elif name == "event":
            self._kind = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit() and len(value) < 10:
            self.retry_s = int(value) / 1000
        return None

    def _dispatch(self) -> ServerEvent | None:
        data, kind = self._data, self._kind
        self._data, self._kind, self._data_bytes = [], "", 0
        return ServerEvent(kind=kind or "message", data="\n".join(data), id=self._id) if data else None
