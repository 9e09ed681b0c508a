"""Clients that do not read or do not say what they want are cut, and keep nobody waiting. Channels may be silent."""

from __future__ import annotations

import json
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from tests.integration.server.bounded_connection import connected, rest, served
from websockets.asyncio.client import connect

pytestmark = pytest.mark.anyio
_UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


async def test_who_does_not_read_is_cut() -> None:
    cut = anyio.Event()
    written = 0

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        nonlocal written
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not cut.is_set():
            # After the cut uvicorn takes and drops everything, and says that the client has left.
            await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
            written += 65_536
            with anyio.move_on_after(0):
                if (await receive())["type"] == "http.disconnect":
                    cut.set()
            await anyio.lowlevel.checkpoint()

    async with connected(endless, write_timeout_s=0.3) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await cut.wait()
        assert written > 0
        await rest(reader)


async def test_a_channel_that_is_not_read_is_cut() -> None:
    over = anyio.Event()

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        try:
            while True:
                await send({"type": "websocket.send", "bytes": b"x" * 65_536})
                await anyio.lowlevel.checkpoint()
        finally:
            over.set()

    async with connected(endless, write_timeout_s=0.3) as (reader, writer):
        writer.write(_UPGRADE)
        await over.wait()
        assert (await rest(reader)).startswith(b"HTTP/1.1 101 ")


async def answering(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


@pytest.mark.parametrize(
    "said", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET"]
)
async def test_who_does_not_say_what_is_wanted_is_cut(said: bytes) -> None:
    async with connected(answering, head_timeout_s=0.3) as (reader, writer):
        writer.write(said)
        answer = await rest(reader)
        assert answer.startswith(b"HTTP/1.1 204 ") == (b"\r\n\r\n" in said)


async def test_what_is_no_http_gets_the_body_of_all_errors_and_no_more() -> None:
    async with connected(answering) as (reader, writer):
        writer.write(b"EHLO example.com\r\n\r\n")
        head, _, body = (await rest(reader)).partition(b"\r\n\r\n")
        error = json.loads(body)
        assert head.startswith(b"HTTP/1.1 400 ")
        assert b"x-request-id: " + error["request_id"].encode() in head


async def test_who_was_answered_has_no_longer_for_the_next_head() -> None:
    async with connected(answering, head_timeout_s=0.3) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204 ")
        writer.write(b"GET / HT")
        assert await rest(reader) == b""


async def test_a_channel_that_is_silent_is_not_taken_for_a_request_that_does_not_come() -> None:
    async def echo(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})

    async with (
        served(echo, head_timeout_s=0.2) as port,
        connect(f"ws://127.0.0.1:{port}", compression=None, proxy=None) as channel,
    ):
        await anyio.sleep(0.6)
        await channel.send("still here")
        assert await channel.recv() == "still here"
