"""A job's output as server-sent events: what is stored, and with ``follow`` what comes until the job ends.

Events are ``output`` with the offset after it as ``id``, ``restart`` when the job began anew under another lease,
``pending`` with what a job waits for and its place in the queue, ``phase`` when the job entered one, with its
iteration, and ``end`` with its status. A client that lost its connection sends the last id as ``Last-Event-ID``.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING, Literal
from uuid import UUID

import anyio

from metalmark.model import NotFound, Phase, TooLarge
from metalmark.server.job_pending import find_pending
from metalmark.store import (
    ChunkRecord,
    JobRecord,
    NoticeKind,
    OutputStream,
    Subscription,
    find_job,
    lease_of_output,
    read_output,
)
from metalmark.wire import EndEvent, JobOutput, OutputEvent, PendingReasonBody, PhaseEvent

if TYPE_CHECKING:
    from metalmark.server.context import ServerContext

BATCH = 32
"""Most pieces that are read at a time: 2 MiB."""
_KEEP_ALIVE_S = 15.0
_FIRST_LOOK_S = 2.0
"""After which a job that waits is looked at again; doubled each time up to the above, as queues move on unheard."""
_PIECE = 48 * 1024


def event(name: str, data: str, *, identifier: str = "") -> bytes:
    """Return one event; ``data`` is JSON and so has no line feed."""
    head = f"id: {identifier}\n" if identifier else ""
    return f"{head}event: {name}\ndata: {data}\n\n".encode()


def output_event(chunk: ChunkRecord) -> bytes:
    """Return the event of a piece."""
    return event(
        "output", _shown(chunk.iteration, chunk.stream, chunk.content), identifier=f"{chunk.lease}-{chunk.end}"
    )


def _shown(iteration: int, stream: OutputStream, content: bytes) -> str:
    name: Literal["stdout", "stderr"] = "stdout" if stream is OutputStream.STDOUT else "stderr"
    try:
        shown = OutputEvent(iteration=iteration, stream=name, text=content.decode())
    except UnicodeDecodeError:
        shown = OutputEvent(iteration=iteration, stream=name, base64=base64.b64encode(content).decode())
    return shown.model_dump_json()


def _before_phase(job: JobRecord, chunks: tuple[ChunkRecord, ...]) -> int:
    """Return how many of some pieces were printed before the phase that the job is in."""
    iteration = job.phase_iteration
    if iteration is None:
        return 0
    # What an iteration printed is printed when its outcome is collected.
    first = iteration + 1 if job.phase == Phase.COLLECT else iteration
    return sum(1 for chunk in chunks if chunk.iteration < first)


def parse_event_id(text: str) -> tuple[int, int]:
    """Return lease and offset of an id that we gave; zeros for anything else, which begins the stream anew."""
    lease, _, offset = text.partition("-")
    if len(text) <= 40 and lease.isascii() and lease.isdecimal() and offset.isascii() and offset.isdecimal():
        return int(lease), int(offset)
    return 0, 0


class OutputFollower:
    """Streams the output of one job."""

    def __init__(self, context: ServerContext, job: UUID, *, follow: bool, last_event_id: str) -> None:
        self._context = context
        self._job = job
        self._follow = follow
        self._lease, self._offset = parse_event_id(last_event_id)
        self._phase: tuple[str, int | None] | None = None
        self._pending: PendingReasonBody | None = None
        self._look_s = _FIRST_LOOK_S
        self._begun = bool(self._offset)

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Yield the events. Ends with the job, or with the stop of the server: the client then comes again."""
        notices = self._context.store.notices
        kinds = (NoticeKind.JOB_OUTPUT, NoticeKind.JOB_CHANGED)
        with notices.subscribe(kinds, subject=self._job) as subscription:
            while not self._context.stopping.is_set():
                subscription.take_waiting()
                job, chunks, pending = await self._read()
                if job is None:
                    return
                if pending is not None and pending != self._pending:
                    yield event("pending", pending.model_dump_json())
                self._pending = pending
                for shown in self._shown(job, chunks):
                    yield shown
                if len(chunks) == BATCH:
                    continue
                if job.status.has_run or not self._follow:
                    async for shown in self._rest(job):
                        yield shown
                    yield event("end", EndEvent(status=str(job.status), phase=job.phase).model_dump_json())
                    return
                if not await self._news(subscription):
                    yield b": alive\n\n"

    async def _read(self) -> tuple[JobRecord | None, tuple[ChunkRecord, ...], PendingReasonBody | None]:
        pending = None
        async with self._context.store.read() as connection:
            job = await find_job(connection, self._job)
            chunks = await read_output(connection, job=self._job, offset=self._offset, most=BATCH)
            if self._offset and await lease_of_output(connection, self._job) not in (None, self._lease):
                # The offset was one of an older lease, whose output is gone.
                chunks = await read_output(connection, job=self._job, offset=0, most=BATCH)
            if job is not None:
                now = self._context.clock.now()
                pending = await find_pending(connection, job, self._context.config.jobs, now=now)
        return job, chunks, pending

    def _shown(self, job: JobRecord, chunks: tuple[ChunkRecord, ...]) -> list[bytes]:
        shown = []
        before = _before_phase(job, chunks)
        for chunk in chunks[:before]:
            shown += self._piece(chunk)
        # What is still to be read may belong before the phase too.
        entered = None if job.phase is None else (job.phase, job.phase_iteration)
        if entered is not None and entered != self._phase and before < BATCH:
            self._phase = entered
            told = PhaseEvent(phase=entered[0], iteration=entered[1], status=str(job.status))
            shown.append(event("phase", told.model_dump_json()))
        for chunk in chunks[before:]:
            shown += self._piece(chunk)
        return shown

    def _piece(self, chunk: ChunkRecord) -> list[bytes]:
        shown = []
        if chunk.lease != self._lease:
            if self._begun:
                shown.append(event("restart", json.dumps({"lease": chunk.lease})))
            self._lease = chunk.lease
        self._begun = True
        self._offset = chunk.end
        shown.append(output_event(chunk))
        return shown

    async def _rest(self, job: JobRecord) -> AsyncIterator[bytes]:
        """Yield the final output of a job whose live output was not stored, or is no longer."""
        if self._begun or job.output_key is None:
            return
        try:
            limit = self._context.config.server.message_max_bytes
            document = JobOutput.model_validate_json(await self._context.blobs.get(job.output_key, limit_bytes=limit))
        except (NotFound, TooLarge, ValueError):
            # What is larger than a message is shown live alone: each reader would hold all of it in memory.
            return
        for number, ran in enumerate(document.results, 1):
            for stream, text, encoded in (
                (OutputStream.STDOUT, ran.stdout, ran.stdout_base64),
                (OutputStream.STDERR, ran.stderr, ran.stderr_base64),
            ):
                content = base64.b64decode(encoded) if encoded is not None else (text or "").encode()
                for start in range(0, len(content), _PIECE):
                    yield event("output", _shown(number, stream, content[start : start + _PIECE]))

    def _patience_s(self) -> float:
        if self._pending is None:
            return _KEEP_ALIVE_S
        patience_s, self._look_s = self._look_s, min(2 * self._look_s, _KEEP_ALIVE_S)
        return patience_s

    async def _news(self, subscription: Subscription) -> bool:
        """Wait until something changed; False after a while without."""
        heard = False
        with anyio.move_on_after(self._patience_s()):
            async with anyio.create_task_group() as tasks:

                async def stop() -> None:
                    await self._context.stopping.wait()
                    tasks.cancel_scope.cancel()

                tasks.start_soon(stop)
                async for _ in subscription:
                    heard = True
                    break
                tasks.cancel_scope.cancel()
        return heard
