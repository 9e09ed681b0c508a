"""A forward proxy on loopback to which every name is this machine, for clients that are told to use one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_HEAD_BYTES = 64 * 1024


@dataclass(kw_only=True)
class ForwardProxy:
    """A proxy that runs."""

    url: str = ""
    seen: list[tuple[str, str]] = field(default_factory=list)
    """Method and target of each request: an address, or ``host:port`` of what was connected to."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection, for a single request unless it is a tunnel."""
        with suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.rstrip("\r\n").split("\r\n")
            method, target, version = first.split(" ")
            self.seen.append((method, target))
            place = urlsplit(f"//{target}" if method == "CONNECT" else target)
            there = await asyncio.open_connection("127.0.0.1", place.port or 80)
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            else:
                path = place._replace(scheme="", netloc="").geturl() or "/"
                kept = [line for line in lines if not line.lower().startswith(("connection:", "proxy-"))]
                # The next request would have to be changed in the same way, so there is none on this connection.
                sent = "\r\n".join([f"{method} {path} {version}", *kept, "Connection: close", "", ""])
                there[1].write(sent.encode("latin-1"))
            await asyncio.gather(_carry(reader, there[1]), _carry(there[0], writer))
        writer.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(_HEAD_BYTES):
            writer.write(data)
            await writer.drain()
    with suppress(OSError):
        writer.close()


@contextmanager
def forward_proxy() -> Iterator[ForwardProxy]:
    """Run a proxy in a thread."""
    proxy, ready = ForwardProxy(), Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]()

    async def run() -> None:
        stop = asyncio.Event()
        server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
        proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set_result((asyncio.get_running_loop(), stop))
        await stop.wait()
        server.close()

    runner = threading.Thread(target=asyncio.run, args=(run(),), name="forward proxy", daemon=True)
    runner.start()
    loop, stop = ready.result(60)
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(stop.set)
        runner.join(60)
