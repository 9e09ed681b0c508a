"""An application served over connections with deadlines, and what arrives of it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import anyio
import uvicorn

from metalmark.server.connection import BoundedChannel, BoundedHttp


@contextlib.asynccontextmanager
async def served(app: Any, **bounds: float) -> AsyncIterator[int]:
    """Serve an application with these bounds, and give the port."""
    http = type("ImpatientHttp", (BoundedHttp,), bounds)
    channel = type("ImpatientChannel", (BoundedChannel,), bounds)
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(app, http=http, ws=channel, lifespan="off", log_config=None, access_log=False, interface="asgi3")
    )
    serving = asyncio.ensure_future(server.serve(sockets=[listening]))
    try:
        with anyio.fail_after(30):
            yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        await serving
        listening.close()


@contextlib.asynccontextmanager
async def connected(app: Any, **bounds: float) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Serve an application with these bounds, and connect to it."""
    async with served(app, **bounds) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        yield reader, writer
        writer.close()
        with contextlib.suppress(ConnectionResetError):
            await writer.wait_closed()


async def rest(reader: asyncio.StreamReader) -> bytes:
    """Return what still arrives until the connection ends."""
    found = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while piece := await reader.read(65_536):
            found += piece
    return bytes(found)
