"""A scripted server that speaks the public messages of the runner channel and nothing else, strictly by their letter.

It keeps jobs in memory, and its connections have the three states of the protocol: idle, polling, executing. What a
state does not take it passes over without a word, and what is no transition ends the connection without a close frame.
Tests script its faults: refused handshakes, swallowed acknowledgements, offers, cuts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from uuid import UUID, uuid4

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from metalmark.model import ProtocolError
from metalmark.wire import (
    RunnerHeartbeat,
    RunnerMessage,
    RunnerReady,
    RunnerRunning,
    TerminalMessage,
    read_runner_message,
)

MESSAGE_MAX_BYTES = 4 * 1024 * 1024
_ACTIVE = ("claimed", "running")
_SPEC = {
    "uuid": "01a1fbc5-0000-7000-8000-000000000001",
    "name": "Small",
    "slug": "small",
    "os": "linux",
    "architecture": "x86_64",
    "sandbox": "firecracker",
    "cpu": 1,
    "memory": 2**29,
    "disk": 2**30,
    "network": False,
    "fallback": None,
    "created": "2026-01-31T10:05:00Z",
    "modified": "2026-01-31T10:05:00Z",
    "archived": None,
}
# What a result does to a job in each state; a state that is not named drops the connection.
_TAKEN = {
    "completed": {"running": "processed", "failed": "processed", "processed": None, "canceled": None},
    "failed": {"claimed": "failed", "running": "failed", "processed": None, "failed": None, "canceled": None},
    "canceled": {"claimed": "canceled", "running": "canceled", "canceled": None},
}


class _Dropped(Exception):
    """The connection ends without a close frame."""


@dataclass
class ContractJob:
    """A job of the scripted server."""

    id: UUID
    timeout_s: int = 60
    status: str = "pending"
    results: list[dict[str, Any]] | None = None
    error: str | None = None
    started: float | None = None
    heard: float = 0.0
    ends: list[str] = field(default_factory=list)
    """Each status that the job entered for good, in order."""

    def become(self, status: str) -> None:
        """Enter a state."""
        self.status = status
        if status not in _ACTIVE:
            self.ends.append(status)


@dataclass
class ContractServer:
    """The server and its script."""

    key: str
    runner: str = "rack-7"
    silence_s: float = 90.0
    """After how much silence a job has failed."""
    grace_s: float = 60.0
    jobs: dict[UUID, ContractJob] = field(default_factory=dict)
    said: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """Every message of the runner, with the state of the connection that it came to."""
    handshakes: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Statuses, with headers, that the next handshakes are refused with."""
    swallowed_acks: int = 0
    """How many acknowledgements of results are still to be lost on their way."""
    cut_before_ack: int = 0
    """How many connections still break after a result was stored, before it is acknowledged."""
    offer: dict[str, str] | None = None
    """Sent in answer to a ``ready`` that says what program the runner is."""
    hangs_up: bool = False
    """Whether every connection ends right after the upgrade, as with a key that is not known."""
    connections: int = 0
    port: int = 0
    _open: set[ServerConnection] = field(default_factory=set)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        """``http://host:port``."""
        return f"http://127.0.0.1:{self.port}"

    def submit(self, *, timeout_s: int = 60) -> ContractJob:
        """Submit a job."""
        job = ContractJob(uuid4(), timeout_s=timeout_s)
        self.jobs[job.id] = job
        self._tell()
        return job

    def cut(self) -> None:
        """Break every connection."""
        for connection in list(self._open):
            connection.transport.abort()

    async def close_all(self, code: int = 1001, reason: str = "server shutting down") -> None:
        """End every connection with a close frame."""
        for connection in list(self._open):
            await connection.close(code, reason)

    def events(self, state: str | None = None) -> list[str]:
        """Return the events that the runner said, those in one state alone when it is named."""
        return [message["event"] for where, message in self.said if state in (None, where)]

    def _tell(self) -> None:
        event, self._news = self._news, asyncio.Event()
        event.set()

    async def handshake(self, connection: ServerConnection, request: Request) -> Response | None:
        """Refuse an upgrade as the script says."""
        if self.handshakes:
            status, headers = self.handshakes.pop(0)
            response = connection.respond(HTTPStatus(status), "no\n")
            for name, value in headers.items():
                response.headers[name] = value
            return response
        if request.path != f"/v0/runners/{self.runner}/channel":
            return connection.respond(HTTPStatus.BAD_REQUEST, "no such path\n")
        return None

    async def serve_runner(self, connection: ServerConnection) -> None:
        """Serve one connection until it is over."""
        self.connections += 1
        request = connection.request
        authorized = request is not None and request.headers.get("Authorization") == f"Bearer {self.key}"
        if self.hangs_up or not authorized:
            connection.transport.abort()
            return
        self._open.add(connection)
        try:
            await _Connection(self, connection).run()
        except (_Dropped, ConnectionClosed):
            connection.transport.abort()
        finally:
            self._open.discard(connection)

    def late(self, message: TerminalMessage) -> None:
        """Take a result.

        Raises:
            _Dropped: The job's state takes no such result.
        """
        job = self.jobs.get(message.job)
        if job is None or job.status == "pending":
            return
        fitting = _TAKEN[message.event]
        if job.status not in fitting:
            raise _Dropped
        status = fitting[job.status]
        if status is not None:
            job.results = [result.model_dump() for result in getattr(message, "results", ())]
            job.error = getattr(message, "error", None)
            job.become(status)

    async def watch(self) -> None:
        """Fail the jobs whose runner is silent for too long."""
        while True:
            await asyncio.sleep(min(0.05, self.silence_s / 4))
            for job in self.jobs.values():
                if job.status in _ACTIVE and _now() - job.heard > self.silence_s:
                    job.become("failed")


class _Connection:
    def __init__(self, server: ContractServer, socket: ServerConnection) -> None:
        self._server = server
        self._socket = socket
        self._state = "idle"

    async def run(self) -> None:
        while True:
            ready = await self._idle()
            job = await self._polling(ready.poll_timeout_s)
            if job is not None:
                await self._executing(job)

    async def _receive(self, within_s: float) -> RunnerMessage | None:
        """Return the next message; None for what is none, where the state passes over it."""
        async with asyncio.timeout(within_s):
            text = await self._socket.recv()
        try:
            message = read_runner_message(text)
        except ProtocolError:
            if self._state == "idle":
                raise _Dropped from None
            return None
        self._server.said.append((self._state, json.loads(text)))
        return message

    async def _send(self, **fields: Any) -> None:  # noqa: ANN401 - JSON
        await self._socket.send(json.dumps(fields))

    async def _idle(self) -> RunnerReady:
        self._state = "idle"
        while True:
            try:
                message = await self._receive(self._server.silence_s)
            except TimeoutError:
                # The pings of a runner count as life, and are answered below this.
                continue
            if isinstance(message, TerminalMessage):
                self._server.late(message)
                await self._acknowledge(message)
            elif isinstance(message, RunnerReady):
                offer = self._server.offer
                if offer is not None and message.runner is not None:
                    await self._send(event="update", **offer)
                    raise _Dropped
                return message

    async def _acknowledge(self, message: TerminalMessage) -> None:
        if self._server.cut_before_ack:
            self._server.cut_before_ack -= 1
            raise _Dropped
        if self._server.swallowed_acks:
            self._server.swallowed_acks -= 1
            return
        await self._send(event="ack", job=str(message.job))

    async def _polling(self, poll_s: float) -> ContractJob | None:
        self._state = "polling"
        until = _now() + poll_s
        while True:
            news = self._server._news  # noqa: SLF001 - of one piece with its server
            for job in self._server.jobs.values():
                if job.status == "pending":
                    job.become("claimed")
                    job.heard = _now()
                    await self._send(**_claimed(job))
                    return job
            if until <= _now():
                await self._send(event="no_job")
                return None
            with contextlib.suppress(TimeoutError):
                await self._first(news, until - _now())

    async def _first(self, news: asyncio.Event, within_s: float) -> None:
        """Wait for a new job, passing over what the runner says."""
        heard = asyncio.ensure_future(self._receive(within_s))
        told = asyncio.ensure_future(news.wait())
        try:
            await asyncio.wait((heard, told), timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
            if heard.done():
                heard.result()
        finally:
            for task in (heard, told):
                task.cancel()
            await asyncio.gather(heard, told, return_exceptions=True)

    async def _executing(self, job: ContractJob) -> None:
        self._state = "executing"
        while True:
            try:
                message = await self._receive(max(0.01, job.heard + self._server.silence_s - _now()))
            except TimeoutError:
                if job.status in _ACTIVE:
                    job.become("failed")
                await self._socket.close(1000, '"heartbeat_timeout"')
                return
            if message is None:
                continue
            if isinstance(message, RunnerReady):
                await self._send(event="ack", job=str(job.id))
                continue
            job.heard = _now()
            if isinstance(message, TerminalMessage):
                self._server.late(message.model_copy(update={"job": job.id}))
                self._state = "idle"
                await self._acknowledge(message.model_copy(update={"job": job.id}))
                return
            if self._over(job, message):
                self._state = "idle"
                await self._send(event="cancel")
                return
            await self._send(event="ack", job=str(job.id))

    def _over(self, job: ContractJob, message: RunnerRunning | RunnerHeartbeat) -> bool:
        if isinstance(message, RunnerRunning) and job.status == "claimed":
            job.become("running")
            job.started = _now()
        limit_s = job.timeout_s + self._server.grace_s
        if job.status in _ACTIVE and job.started is not None and _now() - job.started > limit_s:
            job.become("canceled")
        return job.status == "canceled"


def _claimed(job: ContractJob) -> dict[str, Any]:
    config = {
        "registry": "http://localhost:6610/",
        "project": "01a1fbc5-0000-7000-8000-0000000000aa",
        "digest": "sha256:" + "0" * 64,
        "image": "adder:v3",
        "timeout": job.timeout_s,
    }
    return {
        "event": "job",
        "uuid": str(job.id),
        "spec": _SPEC,
        "config": config,
        "oci_token": "a.b.c",
        "timeout": job.timeout_s,
        "created": "2026-01-31T10:10:00Z",
    }


def _now() -> float:
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def contract_server(key: str, **script: Any) -> AsyncIterator[ContractServer]:  # noqa: ANN401 - its fields
    """Run the server on a free port until the context ends."""
    server = ContractServer(key, **script)
    watching = asyncio.ensure_future(server.watch())
    try:
        async with serve(
            server.serve_runner,
            "127.0.0.1",
            0,
            process_request=server.handshake,
            compression=None,
            ping_interval=None,
            max_size=MESSAGE_MAX_BYTES,
            close_timeout=0.2,
        ) as listener:
            sockets: Sequence[Any] = list(listener.sockets)
            server.port = sockets[0].getsockname()[1]
            try:
                yield server
            finally:
                server.cut()
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
