"""A TCP line between a client and a server that tests cut, stall, reset and make one-way."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from enum import Enum
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")

_START_S = 10.0
_PIECE_BYTES = 64 * 1024
_RESET = struct.pack("ii", 1, 0)


class Line(Enum):
    """How the line is."""

    WORKS = "works"
    STALLED = "stalled"
    """Connections stay, and are made, and nothing moves. What was sent moves on when the line works again."""
    DEAF_SERVER = "deaf server"
    """Nothing moves from the clients to the server; the other way works."""
    DEAF_CLIENT = "deaf client"
    """Nothing moves from the server to the clients; the other way works."""
    CUT = "cut"
    """No connections: those that there were are reset, and so is each new one."""


_UP = frozenset((Line.WORKS, Line.DEAF_CLIENT))
_DOWN = frozenset((Line.WORKS, Line.DEAF_SERVER))


class FaultyLine:
    """A proxy on loopback. Use as a context manager; from any thread.

    Args:
        port: Of the server, on loopback.
        listen_port: Where clients connect; 0 for any.
    """

    def __init__(self, port: int, *, listen_port: int = 0) -> None:
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", listen_port), backlog=256)
        self._listener.setblocking(False)  # noqa: FBT003 - the library's signature
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        """Connections that were ever made through it."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="faulty line", daemon=True)
        self._started = threading.Event()
        self._state = Line.WORKS
        self._changed: asyncio.Event | None = None
        self._carried: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """``http://host:port`` of the clients' end."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(_START_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._reset())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_START_S)
        self._listener.close()

    def become(self, state: Line) -> None:
        """Change how the line is, for the connections that there are too."""
        self._call(self._become(state))

    def reset(self) -> int:
        """End every connection with a reset, and return how many there were; new ones work as the state has it."""
        return self._call(self._reset())

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_START_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._changed = asyncio.Event()
        accepting = self._loop.create_task(self._accept())
        self._loop.call_soon(self._started.set)
        self._loop.run_forever()
        accepting.cancel()
        self._loop.run_until_complete(asyncio.gather(accepting, return_exceptions=True))
        self._loop.close()

    async def _become(self, state: Line) -> None:
        assert self._changed is not None
        self._state = state
        self._changed.set()
        self._changed = asyncio.Event()
        if state is Line.CUT:
            await self._reset()

    async def _reset(self) -> int:
        # The tasks close their sockets themselves: closed under them, the numbers could be another's already.
        carried = list(self._carried)
        for task in carried:
            task.cancel()
        await asyncio.gather(*carried, return_exceptions=True)
        return len(carried)

    async def _accept(self) -> None:
        while True:
            client, _ = await self._loop.sock_accept(self._listener)
            client.setblocking(False)  # noqa: FBT003 - the library's signature
            task = self._loop.create_task(self._carry(client))
            self._carried.add(task)
            task.add_done_callback(self._carried.discard)
            # Here too: one that is canceled before its first step has no finally.
            task.add_done_callback(lambda _, client=client: client.close())  # type: ignore[misc]  # a bound default
            self.connections += 1

    async def _carry(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        server.setblocking(False)  # noqa: FBT003 - the library's signature
        pumps: list[asyncio.Task[None]] = []
        try:
            if self._state is not Line.CUT:
                await self._loop.sock_connect(server, ("127.0.0.1", self._server_port))
                pumps.append(self._loop.create_task(self._pump(client, server, _UP)))
                pumps.append(self._loop.create_task(self._pump(server, client, _DOWN)))
                await asyncio.wait(pumps, return_when=asyncio.FIRST_EXCEPTION)
        except OSError:
            # The server is not there: the client learns of it by a reset.
            pass
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for end in (client, server):
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                end.close()

    async def _pump(self, source: socket.socket, target: socket.socket, moving: frozenset[Line]) -> None:
        while True:
            data = await self._loop.sock_recv(source, _PIECE_BYTES)
            while self._state not in moving:
                assert self._changed is not None
                await self._changed.wait()
            if not data:
                target.shutdown(socket.SHUT_WR)
                return
            await self._loop.sock_sendall(target, data)
