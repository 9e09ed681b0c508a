"""The bounds in time of one runner's connection, against a socket that does as it is told."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from starlette.websockets import WebSocketState

from metalmark.server import channel_wire as module
from metalmark.server.channel_wire import ChannelWire, Gone, Silence
from metalmark.server.socket_protocol import EXTENSION
from metalmark.wire import NoJob


class FakeLink:
    """What is below the socket."""

    def __init__(self) -> None:
        self.aborted = False

    async def ping(self, timeout_s: float) -> bool:
        return True

    def last_frame_s(self) -> float:
        return anyio.current_time() - 7

    def abort(self) -> None:
        self.aborted = True


class FakeSocket:
    """A socket whose peer reads nothing, or that is over."""

    def __init__(self, *, stuck: bool = False, over: bool = False, events: list[dict[str, Any]] | None = None) -> None:
        self.link = FakeLink()
        self.scope = {"extensions": {EXTENSION: self.link}}
        self.application_state = WebSocketState.CONNECTED
        self.sent: list[object] = []
        self._stuck = stuck
        self._over = over
        self._events = events or []

    async def receive(self) -> dict[str, Any]:
        if self._events:
            return self._events.pop(0)
        await anyio.sleep_forever()
        raise AssertionError

    async def send_text(self, text: str) -> None:
        await self._send(text)

    async def close(self, code: int, reason: str) -> None:
        await self._send((code, reason))

    async def _send(self, what: object) -> None:
        if self._stuck:
            await anyio.sleep_forever()
        if self._over:
            raise RuntimeError("after the close")
        self.sent.append(what)


def wire(socket: FakeSocket) -> ChannelWire:
    return ChannelWire(socket)  # type: ignore[arg-type]  # the part of it that is used


def test_a_runner_that_does_not_read_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WRITE_TIMEOUT_S", 0.05)

    async def main() -> None:
        socket = FakeSocket(stuck=True)
        with pytest.raises(Gone):
            await wire(socket).send(NoJob())
        assert socket.link.aborted
        socket = FakeSocket(stuck=True)
        await wire(socket).close(1000, "bye")
        assert socket.link.aborted

    anyio.run(main)


def test_what_is_sent_after_the_end_is_told_and_a_close_is_not() -> None:
    async def main() -> None:
        socket = FakeSocket(over=True)
        with pytest.raises(Gone):
            await wire(socket).send(NoJob())
        await wire(socket).close(1000, "bye")
        assert not socket.link.aborted

    anyio.run(main)


def test_texts_silence_and_the_end_are_told_apart() -> None:
    async def main() -> None:
        events: list[dict[str, Any]] = [
            {"type": "websocket.receive", "text": "a"},
            {"type": "websocket.receive", "bytes": b"b"},
            {"type": "websocket.receive", "text": ""},
        ]
        channel = wire(FakeSocket(events=events))
        assert await channel.receive(1) == "a"
        assert await channel.receive(1) is Silence.BINARY
        assert await channel.receive(1) == ""
        assert await channel.receive(0.01) is Silence.TIMEOUT
        with pytest.raises(Gone):
            await wire(FakeSocket(events=[{"type": "websocket.disconnect", "code": 1006}])).receive(1)
        assert channel.silent_s() == pytest.approx(7, abs=1)

    anyio.run(main)


def test_a_reason_is_cut_to_what_a_close_frame_holds_and_stays_text() -> None:
    async def main() -> None:
        socket = FakeSocket()
        await wire(socket).close(1002, "ü" * 100)
        assert socket.sent == [(1002, "ü" * 60)]

    anyio.run(main)
