"""A server of ours in memory, for tests of sessions: leases, answers, and connections that break."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any
from uuid import UUID, uuid4

import anyio
from anyio.abc import ObjectReceiveStream, ObjectSendStream

from metalmark.model import ChannelLost
from metalmark.system import SystemClock
from metalmark.wire import (
    SUBPROTOCOL,
    Began,
    Broke,
    FromRunner,
    HeldLease,
    JobConfig,
    LeasedJob,
    LiveOutput,
    RefusalReason,
    Refused,
    RunnerHello,
    SpecBody,
    StillAlive,
    StopJob,
    Stopped,
    Succeeded,
    Taken,
    Wanting,
    Welcome,
    channel_text,
    read_from_runner,
)

NOW = datetime(2026, 1, 31, tzinfo=UTC)
SPEC = SpecBody.model_validate(
    {
        "uuid": str(UUID(int=5)), "name": "Small", "slug": "small", "os": "linux", "architecture": "x86_64",
        "sandbox": "container", "cpu": 1, "memory": 2**29, "disk": 2**30, "network": False,
        "created": "2026-01-31T00:00:00Z", "modified": "2026-01-31T00:00:00Z",
    }
)  # fmt: skip
CONFIG = JobConfig.model_validate(
    {"registry": "http://localhost:6610/", "project": str(UUID(int=6)), "digest": "sha256:" + "a" * 64, "timeout": 60}
)


class FastClock(SystemClock):
    """A clock on which a second takes ten milliseconds."""

    async def sleep_s(self, seconds: float) -> None:
        await anyio.sleep(seconds / 100)


class Pipe:
    """The runner's end of one connection in memory."""

    subprotocol = SUBPROTOCOL

    def __init__(self) -> None:
        self.to_server: ObjectSendStream[str]
        self.from_runner: ObjectReceiveStream[str]
        self.to_runner: ObjectSendStream[str]
        self.from_server: ObjectReceiveStream[str]
        self.to_server, self.from_runner = anyio.create_memory_object_stream[str](inf)
        self.to_runner, self.from_server = anyio.create_memory_object_stream[str](inf)
        self.heard = False
        self.is_over = False

    async def send(self, text: str) -> None:
        await anyio.lowlevel.checkpoint()
        if self.is_over:
            raise ChannelLost("cut")
        self.to_server.send_nowait(text)

    async def receive(self) -> str:
        try:
            text = await self.from_server.receive()
        except anyio.EndOfStream:
            raise ChannelLost("cut") from None
        if self.is_over:
            raise ChannelLost("cut")
        self.heard = True
        return text

    def cut(self) -> None:
        """Break it: what was sent and not read yet is lost."""
        if not self.is_over:
            self.is_over = True
            for stream in (self.to_server, self.from_runner, self.to_runner):
                stream.close()

    def close(self) -> None:
        self.cut()
        self.from_server.close()


@dataclass
class ModeledJob:
    """A job of the server."""

    id: UUID
    lease: int = 0
    status: str = "pending"
    began: bool = False
    printed: bytes = b""
    phases: list[str] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    results: Any = None
    error: str | None = None


@dataclass
class ModeledServer:
    """The server."""

    jobs: dict[UUID, ModeledJob] = field(default_factory=dict)
    heard: list[FromRunner] = field(default_factory=list)
    uploads: set[str] = field(default_factory=set)
    refuse: Callable[[FromRunner], RefusalReason | None] = lambda _message: None
    """What to refuse, and why."""
    silent: bool = False
    """Whether it answers nothing."""
    lose_answers: int = 0
    """How many messages are still to be carried out, with the connection breaking before their answer."""
    connections: int = 0
    current: Pipe | None = None
    _sent: int = 0
    _wanting: Wanting | None = None
    _unheard: set[tuple[UUID, int]] = field(default_factory=set)
    """Leases that were sent over this connection and that the runner did not name yet."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Pipe]:
        """Connect a runner; an earlier connection is replaced."""
        if self.current is not None:
            self.current.cut()
        pipe = self.current = Pipe()
        self.connections += 1
        self._give_back()
        self._sent, self._wanting = 0, None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._serve, pipe)
            try:
                yield pipe
            finally:
                pipe.close()
                tasks.cancel_scope.cancel()

    def _give_back(self) -> None:
        for job, lease in self._unheard:
            if self._held(job, lease):
                self.jobs[job].status = "pending"
        self._unheard.clear()

    def submit(self) -> ModeledJob:
        job = ModeledJob(uuid4())
        self.jobs[job.id] = job
        self._hand_out()
        return job

    def cancel(self, job: ModeledJob) -> None:
        """A user cancels a job."""
        if job.status in ("pending", "claimed"):
            self._end(job, "canceled")
            self._stop(job)

    def expire(self, job: ModeledJob) -> None:
        """The lease of a job is over."""
        if job.status == "claimed":
            if job.began:
                self._end(job, "failed")
            else:
                job.status = "pending"
            self._stop(job)
            self._hand_out()

    def _stop(self, job: ModeledJob) -> None:
        if job.lease:
            self._push(StopJob(job=job.id, lease=job.lease))

    def _end(self, job: ModeledJob, status: str) -> None:
        job.status = status
        job.ends.append(status)

    def _push(self, message: Any) -> None:
        if self.current is not None and not self.current.is_over:
            self.current.to_runner.send_nowait(channel_text(message))

    def say(self, message: Any) -> None:
        """Say something unasked."""
        self._push(message)

    async def _serve(self, pipe: Pipe) -> None:
        try:
            async for text in pipe.from_runner:
                message = read_from_runner(text)
                self.heard.append(message)
                named = message.jobs if isinstance(message, StillAlive) else [message]
                self._unheard -= {(getattr(it, "job", None), getattr(it, "lease", None)) for it in named}
                if self.silent:
                    continue
                answer = self._answer(message)
                if self.lose_answers:
                    self.lose_answers -= 1
                    pipe.cut()
                    return
                self._push(answer)
                self._hand_out()
        except anyio.ClosedResourceError:
            return

    def _answer(self, message: FromRunner) -> Any:
        reason = self.refuse(message)
        if reason is not None:
            return Refused(re=message.id, reason=reason, message="as told")
        if isinstance(message, RunnerHello):
            held = tuple(lease for lease in message.holding if self._held(lease.job, lease.lease))
            return Welcome(
                re=message.id,
                version="1",
                heartbeat_timeout_s=60,
                frame_max_bytes=2**22,
                inline_output_max_bytes=2**20,
                held=held,
            )
        if isinstance(message, Wanting):
            assert message.received <= self._sent
            self._wanting = message
            return Taken(re=message.id)
        if isinstance(message, StillAlive):
            lost = tuple(lease for lease in message.jobs if not self._held(lease.job, lease.lease))
            return Taken(re=message.id, lost=lost)
        return self._about_job(message)

    def _held(self, job: UUID, lease: int) -> bool:
        found = self.jobs.get(job)
        return found is not None and found.status == "claimed" and found.lease == lease

    def _about_job(self, message: Any) -> Any:
        job = self.jobs.get(message.job)
        ended = isinstance(message, Succeeded | Broke | Stopped)
        if job is None or job.lease != message.lease or job.status == "pending":
            return Refused(re=message.id, reason=RefusalReason.STALE_LEASE)
        if ended:
            return self._take_end(job, message)
        if job.status != "claimed":
            return Refused(re=message.id, reason=RefusalReason.OVER)
        if isinstance(message, Began):
            job.began = True
            job.phases += ["exec"] if message.iteration else []
        elif isinstance(message, LiveOutput):
            new = b"".join(chunk.data for chunk in message.chunks)
            assert message.offset <= len(job.printed), "nothing was dropped"
            job.printed += new[len(job.printed) - message.offset :]
        else:
            job.phases.append(str(message.phase))
        return Taken(re=message.id)

    def _take_end(self, job: ModeledJob, message: Any) -> Any:
        if message.uploaded is not None and message.uploaded.checksum not in self.uploads:
            return Refused(re=message.id, reason=RefusalReason.NOT_UPLOADED)
        if job.status == "claimed" or (job.status == "failed" and isinstance(message, Succeeded)):
            job.results, job.error = message.results, getattr(message, "error", None)
            if isinstance(message, Broke) and message.infrastructure and not job.began and job.lease < 2:
                job.status = "pending"
                job.printed = b""
            else:
                self._end(job, {"completed": "processed"}.get(message.event, message.event))
        elif isinstance(message, Stopped) and job.status in ("processed", "failed"):
            return Refused(re=message.id, reason=RefusalReason.OVER)
        return Taken(re=message.id)

    def _hand_out(self) -> None:
        for job in self.jobs.values():
            wanting = self._wanting
            if self.current is None or self.current.is_over or wanting is None:
                return
            if wanting.slots <= self._sent - wanting.received:
                return
            if job.status == "pending":
                job.status, job.lease, job.printed, job.began = "claimed", job.lease + 1, b"", False
                self._sent += 1
                self._unheard.add((job.id, job.lease))
                self._push(leased(job.id, job.lease))


def leased(job: UUID, lease: int) -> LeasedJob:
    return LeasedJob(
        job=job,
        lease=lease,
        spec=SPEC,
        config=CONFIG,
        oci_token="a.b.c",
        timeout=60,
        created=NOW,
        expires=NOW + timedelta(hours=1),
    )


def held(job: UUID, lease: int) -> HeldLease:
    return HeldLease(job=job, lease=lease)
