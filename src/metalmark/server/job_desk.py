"""What runners say of jobs, carried out: the one place where a channel's message becomes a change of the store."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import structlog

from metalmark.model import (
    Effect,
    EndReason,
    JobEvent,
    JobStatus,
    NotFound,
    Phase,
    StoreUnavailable,
    TooLarge,
    transition,
)
from metalmark.server.large_output import large_output_is_readable
from metalmark.server.report_times import measured_times
from metalmark.store import (
    ClaimedJob,
    Connection,
    JobRecord,
    LeaseHolder,
    Moved,
    Notice,
    NoticeKind,
    StoredOutput,
    announce,
    expire_job,
    find_job,
    move_job,
    note_heartbeat,
    record_phase,
    return_claim,
    set_report_times,
)
from metalmark.wire import IterationEnd, JobOutput, ends_of

if TYPE_CHECKING:
    from metalmark.server.context import ServerContext

_ERROR_MAX_LENGTH = 4096
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a runner says that a job ended."""

    event: JobEvent
    output: JobOutput | StoredOutput | None = None
    """The document itself, or where it was stored before."""
    error: str | None = None
    infrastructure: bool = False
    """Whether the benchmark is not to blame, so that the job may go back to the queue."""
    iterations: tuple[IterationEnd, ...] = ()
    """How each ended, where the document does not say it, or was stored before."""


class JobDesk:
    """Changes jobs as their runners say.

    Every method raises `StoreUnavailable` when the store cannot take it; nothing was changed then.
    """

    def __init__(self, context: ServerContext) -> None:
        self._context = context

    @property
    def lease_s(self) -> float:
        """How long a lease lasts after its holder's last sign of life."""
        return self._context.config.jobs.heartbeat_timeout_s

    async def seen(self, runner: UUID, *, connected: bool) -> None:
        """Keep that a runner gave a sign of life; one that connects is told to the other processes of this server."""
        now = self._context.clock.now()

        async def work(connection: Connection) -> None:
            await note_heartbeat(connection, runner_id=runner, now=now)
            if connected:
                announce(connection, Notice(kind=NoticeKind.RUNNER_CHANGED, subject=runner))

        await self._context.store.write(work)

    async def read(self, job: UUID) -> JobRecord | None:
        """Return a job as it is now."""
        async with self._context.store.read() as connection:
            return await find_job(connection, job)

    async def start(self, job: UUID, holder: LeaseHolder, *, began: bool, iteration: int = 0) -> Moved | None:
        """The runner works on a job; ``began`` when it says that the benchmark itself is executed now.

        Args:
            job: Which job.
            holder: Who says so.
            began: Whether the benchmark began.
            iteration: The one that is executed; 0 when that was not said.
        """
        now = self._context.clock.now()
        phase, number = str(Phase.EXEC), iteration or None

        async def work(connection: Connection) -> Moved | None:
            expires = now + timedelta(seconds=self.lease_s)
            moved = await move_job(connection, job, JobEvent.START, now=now, holder=holder, lease_expires=expires)
            if began and moved is not None and not moved.foreign and moved.job.status is JobStatus.RUNNING:
                await record_phase(connection, job, holder=holder, phase=phase, iteration=number, began=True, now=now)
            return moved

        return self._told(await self._context.store.write(work))

    async def heartbeat(self, held: dict[UUID, LeaseHolder]) -> dict[UUID, Moved | None]:
        """The runner is alive and holds these jobs: extend their leases, and say which are no longer its own."""
        now = self._context.clock.now()

        async def work(connection: Connection) -> dict[UUID, Moved | None]:
            expires = now + timedelta(seconds=self.lease_s)
            return {
                job: await move_job(connection, job, JobEvent.HEARTBEAT, now=now, holder=holder, lease_expires=expires)
                for job, holder in sorted(held.items())
            }

        return await self._context.store.write(work)

    async def phase(self, job: UUID, holder: LeaseHolder, phase: Phase, *, iteration: int) -> bool:
        """Note how far the runner is; return whether it holds the job."""
        now = self._context.clock.now()
        began = phase is Phase.EXEC

        async def work(connection: Connection) -> bool:
            return await record_phase(
                connection, job, holder=holder, phase=str(phase), iteration=iteration, began=began, now=now
            )

        return await self._context.store.write(work)

    async def silent(self, job: UUID, holder: LeaseHolder) -> JobRecord | None:
        """The runner has been silent for the length of its lease: end the job if it still is the runner's."""
        now = self._context.clock.now()

        async def work(connection: Connection) -> tuple[JobRecord | None, Moved | None]:
            found = await find_job(connection, job)
            if found is None or found.runner != holder.runner or not found.status.is_active:
                return found, None
            # Another process may have heard of the runner since, and then the lease is not over.
            return found, await expire_job(connection, job, now=now)

        found, moved = await self._context.store.write(work)
        self._told(moved)
        return found if moved is None else moved.job

    async def give_back(self, claimed: ClaimedJob) -> None:
        """Put a job back whose runner went away before it was told of it."""
        holder = LeaseHolder(runner=claimed.runner, lease=claimed.lease)
        now = self._context.clock.now()

        async def work(connection: Connection) -> None:
            await return_claim(connection, claimed.job, holder=holder, now=now)

        await self._context.store.write(work)

    async def end(self, job: UUID, holder: LeaseHolder, ending: Ending) -> Moved | None:
        """The runner is done with a job; its output is stored before the job's state says so.

        Returns:
            What became of it; for results that were taken, after they were read. None when there is no such job.
        """
        found = await self.read(job)
        if found is None:
            return None
        if found.runner != holder.runner or (holder.lease is not None and holder.lease != found.lease):
            return Moved(effect=Effect.KEEP, before=found.status, job=found, foreign=True)
        stored = None
        if ending.output is not None and transition(found.status, ending.event).effect is Effect.MOVE:
            ends = tuple(end.model_dump(mode="json") for end in ending.iterations or _ends_in(ending.output))
            stored = replace(await self._stored(found, ending.output), iteration_ends=ends)
        moved = await self._move_to_end(found, holder, ending, stored)
        if moved is None or stored is None or moved.job.output_key != stored.key:
            await self._forget(None if stored is None else stored.key)
        elif found.output_key not in (None, stored.key):
            await self._forget(found.output_key)
        self._told(moved)
        if moved is not None and moved.effect is Effect.MOVE and moved.job.status is JobStatus.COMPLETED:
            try:
                now_read = await self._read(moved.job, ending.output)
            except StoreUnavailable:
                # The results are stored and thereby the server's business: their runner has nothing to repeat.
                self._context.readings.add(moved.job)
            else:
                moved = Moved(effect=moved.effect, before=moved.before, job=now_read)
        return moved

    async def _move_to_end(
        self, found: JobRecord, holder: LeaseHolder, ending: Ending, stored: StoredOutput | None
    ) -> Moved | None:
        now = self._context.clock.now()
        # A text column of PostgreSQL holds no NUL, and a bound keeps the list of jobs readable.
        error = None if ending.error is None else ending.error.replace("\0", "\ufffd")[:_ERROR_MAX_LENGTH]
        # The lease of a public runner is not in its messages; what it meant is the one that was read just now.
        exact = LeaseHolder(runner=holder.runner, lease=found.lease)

        async def work(connection: Connection) -> Moved | None:
            if ending.infrastructure:
                requeue = JobEvent.REQUEUE
                moved = await move_job(
                    connection, found.id, requeue, now=now, holder=exact, error=error, unless_began=True
                )
                if moved is None or moved.foreign or moved.effect is Effect.MOVE:
                    return moved
            reason = EndReason.INFRASTRUCTURE if ending.infrastructure else None
            return await move_job(
                connection, found.id, ending.event, now=now, holder=exact, reason=reason, error=error, output=stored
            )

        return await self._context.store.write(work)

    async def _stored(self, job: JobRecord, output: JobOutput | StoredOutput) -> StoredOutput:
        if isinstance(output, StoredOutput):
            return output
        content = output.model_dump_json().encode()
        checksum = hashlib.sha256(content).hexdigest()
        key = output_key(job, checksum)
        await self._context.blobs.put(key, content)
        return StoredOutput(key=key, size_bytes=len(content), digest=f"sha256:{checksum}")

    async def _forget(self, key: str | None) -> None:
        if key is not None:
            await self._context.blobs.delete(key)

    async def process(self, job: JobRecord) -> JobRecord:
        """Read the results of a completed job, and return the job as it is then: processed, or failed.

        Results that are larger than a message are read later, and the job is returned as it is.
        """
        return await self._read(job, None)

    async def process_large(self, job: JobRecord) -> JobRecord:
        """Read the results of a completed job, however large they are, and return the job as it is then."""
        if job.output_key is None:
            return await self._processed(job, readable=False)
        limit_bytes = self._context.config.server.output_max_bytes
        storage = self._context.storage
        readable = await large_output_is_readable(storage, job.output_key, limit_bytes=limit_bytes)
        return await self._processed(job, readable=readable)

    async def _read(self, job: JobRecord, output: JobOutput | StoredOutput | None) -> JobRecord:
        # What came as messages was read then, and is not parsed again.
        readable = isinstance(output, JobOutput)
        try:
            if not readable:
                readable = job.output_key is not None and await self._readable(job.output_key)
        except TooLarge:
            # It takes seconds, in which the channel of its runner would be deaf to signs of life of other jobs.
            self._context.readings.add(job)
            return job
        return await self._processed(job, readable=readable)

    async def _processed(self, job: JobRecord, *, readable: bool) -> JobRecord:
        event, reason, error = JobEvent.PROCESS, None, None
        if job.output_key is None or not readable:
            event, reason, error = JobEvent.PROCESS_FAIL, EndReason.OUTPUT_MISSING, "the stored output is missing"
        now = self._context.clock.now()

        async def work(connection: Connection) -> Moved | None:
            moved = await move_job(connection, job.id, event, now=now, reason=reason, error=error)
            if moved is not None and moved.job.status is JobStatus.PROCESSED and moved.effect is Effect.MOVE:
                start, end = measured_times(moved.job, now=now)
                await set_report_times(connection, moved.job.report, start=start, end=end)
            return moved

        moved = self._told(await self._context.store.write(work))
        return job if moved is None else moved.job

    async def _readable(self, key: str) -> bool:
        try:
            JobOutput.model_validate_json(
                await self._context.blobs.get(key, limit_bytes=self._context.config.server.message_max_bytes)
            )
        except (NotFound, ValueError):
            return False
        return True

    def _told(self, moved: Moved | None) -> Moved | None:
        if moved is not None and moved.effect is Effect.MOVE:
            self._context.metrics.job_moved(str(moved.job.status))
            _log.info("job moved", job=str(moved.job.id), lease=moved.job.lease, status=str(moved.job.status))
        return moved


def _ends_in(output: JobOutput | StoredOutput) -> tuple[IterationEnd, ...]:
    return ends_of(output.results) if isinstance(output, JobOutput) else ()


def output_key(job: JobRecord, checksum: str) -> str:
    """Return where the final output of a job's lease is among the blobs."""
    return f"outputs/{job.project}/{job.id}/{job.lease}-{checksum}.json"
