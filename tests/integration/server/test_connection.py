"""Clients that do not read, or send no request: their connections are cut. Those of channels are not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import uvicorn
from websockets.asyncio.client import connect

from metalmark.server.connection import BoundedChannel, BoundedHttp

pytestmark = pytest.mark.anyio


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

    protocol = type("Impatient", (BoundedHttp,), {"write_timeout_s": 0.3})
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(endless, http=protocol, lifespan="off", log_config=None, access_log=False, interface="asgi3")
    )
    serving = asyncio.ensure_future(server.serve(sockets=[listening]))
    try:
        with anyio.fail_after(30):
            reader, writer = await asyncio.open_connection("127.0.0.1", listening.getsockname()[1], limit=1024)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await cut.wait()
            assert written > 0
            # What the kernel held still arrives, and then the end.
            with contextlib.suppress(ConnectionResetError):
                while await reader.read(65_536):
                    pass
            writer.close()
            with contextlib.suppress(ConnectionResetError):
                await writer.wait_closed()
    finally:
        server.should_exit = True
        await serving
        listening.close()


async def test_a_channel_that_is_silent_is_not_taken_for_a_request_that_does_not_come() -> None:
    async def echo(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})

    protocol = type("Impatient", (BoundedHttp,), {"head_timeout_s": 0.2})
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        echo, http=protocol, ws=BoundedChannel, lifespan="off", log_config=None, access_log=False, interface="asgi3"
    )
    server = uvicorn.Server(config)
    serving = asyncio.ensure_future(server.serve(sockets=[listening]))
    try:
        with anyio.fail_after(30):
            async with connect(f"ws://127.0.0.1:{listening.getsockname()[1]}", compression=None, proxy=None) as channel:
                await anyio.sleep(0.6)
                await channel.send("still here")
                assert await channel.recv() == "still here"
    finally:
        server.should_exit = True
        await serving
        listening.close()
