"""The channel of our own runners, sub-protocol ``metalmark.1``: several jobs, each under its lease, on one connection.

A lost connection ends no job: the runner goes on, and names its leases when it comes back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Never
from uuid import UUID

import anyio
import structlog

from metalmark.model import (
    Capabilities,
    Effect,
    EndReason,
    JobEvent,
    ProtocolError,
    StoreUnavailable,
)
from metalmark.server.channel_job import leased
from metalmark.server.channel_wire import NORMAL, PROTOCOL_ERROR, TOO_BIG, ChannelWire, Gone, Silence
from metalmark.server.channels import ProcessIdentity
from metalmark.server.job_desk import Ending, JobDesk, output_key
from metalmark.server.own_claims import OwnClaims
from metalmark.server.update_offers import OwnOffers
from metalmark.store import (
    Appended,
    ClaimedJob,
    Connection,
    LeaseHolder,
    Moved,
    NewChunk,
    OutputStream,
    RunnerProof,
    RunnerRecord,
    StoredOutput,
    append_output,
    note_heartbeat,
    record_proof,
)
from metalmark.wire import (
    FACTS_MAX_BYTES,
    FRAME_MAX_BYTES,
    INLINE_OUTPUT_MAX_BYTES,
    Attach,
    Began,
    Body,
    Broke,
    FromRunner,
    HeldLease,
    JobEnd,
    JobOutput,
    LiveOutput,
    PhaseTold,
    RefusalReason,
    Refused,
    RunnerHello,
    StillAlive,
    StopJob,
    Stopped,
    Succeeded,
    Taken,
    Wanting,
    Welcome,
    read_from_runner,
)

if TYPE_CHECKING:
    from metalmark.server.context import ServerContext

_HELLO_WITHIN_S = 30.0
_PAUSE_S = 1.0
_SEEN_EVERY_S = 30.0
_log = structlog.get_logger(__name__)


class OwnSession:
    """One connection of one of our own runners."""

    def __init__(self, context: ServerContext, runner: RunnerRecord, wire: ChannelWire, version: str) -> None:
        self._context = context
        self._runner = runner
        self._wire = wire
        self._version = version
        self._desk = JobDesk(context)
        self._identity: ProcessIdentity | None = None
        self._offers: OwnOffers | None = None
        self._capabilities = Capabilities()
        self._held: dict[UUID, LeaseHolder] = {}
        self._claims = OwnClaims(context, runner.id, self._desk, self._hand_over, key_digest=runner.key_digest)
        self._seen_s = context.clock.monotonic_s()
        self._doubtful: dict[UUID, None] = {}
        self._doubts = anyio.Event()

    @property
    def runner_id(self) -> UUID:
        """Whose connection it is."""
        return self._runner.id

    @property
    def identity(self) -> ProcessIdentity | None:
        """Which process is at the other end; None until it said hello."""
        return self._identity

    async def answers(self, within_s: float) -> bool:
        """Whether the runner gives a sign of life in time."""
        return await self._wire.answers(within_s)

    async def close(self, code: int, reason: str) -> None:
        """End the connection with a close frame."""
        await self._wire.close(code, reason)

    def job_changed(self, job: UUID | None) -> None:
        """Look at a job again, and tell the runner at once if it is to stop."""
        self._doubtful |= dict.fromkeys(self._held) if job is None else {job: None}
        self._doubts.set()

    async def run(self) -> None:
        """Serve the connection until it is over."""
        try:
            await self._greet()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._claim_jobs, tasks.cancel_scope)
                tasks.start_soon(self._look_at_jobs, tasks.cancel_scope)
                # Caught in here: what leaves a task group comes out wrapped.
                with suppress(Gone):
                    await self._serve()
                tasks.cancel_scope.cancel()
        except Gone:
            return
        finally:
            for job in list(self._held):
                self._context.channels.unwatch(self, job)

    async def _greet(self) -> None:
        text = await self._wire.receive(_HELLO_WITHIN_S)
        if not isinstance(text, str):
            await self._leave(PROTOCOL_ERROR, "a hello was expected")
        hello = await self._read(text)
        if not isinstance(hello, RunnerHello):
            await self._leave(PROTOCOL_ERROR, "a hello was expected")
        facts = dict(hello.facts or {})
        if len(json.dumps(facts)) > FACTS_MAX_BYTES:
            await self._leave(PROTOCOL_ERROR, f"facts of more than {FACTS_MAX_BYTES} bytes")
        self._identity = ProcessIdentity(process=hello.process, boot=hello.boot)
        self._context.channels.identified(self)
        self._capabilities = _capabilities(hello)
        self._offers = OwnOffers(self._context, hello)
        held = await self._welcomed(hello, facts)
        await self._wire.send(
            Welcome(
                re=hello.id,
                version=self._version,
                heartbeat_timeout_s=self._desk.lease_s,
                frame_max_bytes=FRAME_MAX_BYTES,
                inline_output_max_bytes=INLINE_OUTPUT_MAX_BYTES,
                held=tuple(held),
            )
        )

    async def _welcomed(self, hello: RunnerHello, facts: Mapping[str, object]) -> list[HeldLease]:
        now = self._context.clock.now()
        proof = RunnerProof(
            capabilities=self._capabilities,
            proved=now,
            version=hello.version.replace("\0", "\ufffd"),
            protocol="metalmark.1",
            facts=facts,
        )

        async def work(connection: Connection) -> None:
            await record_proof(connection, runner_id=self._runner.id, proof=proof)
            await note_heartbeat(connection, runner_id=self._runner.id, now=now)

        await self._context.store.write(work)
        return await self._still_held(hello.holding)

    async def _still_held(self, leases: tuple[HeldLease, ...]) -> list[HeldLease]:
        """Extend leases, and return those that are still the runner's; from now on it is told about their jobs."""
        if not leases:
            return []
        # A lease of before this connection is watched first, so that no change falls between.
        for lease in leases:
            if lease.job not in self._held:
                self._hold(lease.job, lease.lease)
        moved = await self._desk.heartbeat({lease.job: self._holder(lease.lease) for lease in leases})
        held = [lease for lease in leases if _is_held(moved[lease.job])]
        for lease in leases:
            if lease in held:
                self._hold(lease.job, lease.lease)
            else:
                self._release(lease.job, lease.lease)
        return held

    async def _serve(self) -> None:
        while True:
            text = await self._wire.receive(self._desk.lease_s)
            if text is Silence.BINARY:
                await self._wire.send(Refused(re=None, reason=RefusalReason.INVALID, message="messages are text"))
                continue
            if not isinstance(text, str):
                await self._leave(NORMAL, json.dumps(str(EndReason.HEARTBEAT_TIMEOUT)))
            message = await self._read(text)
            for job in _jobs_of(message):
                self._claims.heard(job)
            await self._wire.send(await self._answer(message))
            offer = None if self._offers is None else await self._offers.due()
            if offer is not None:
                await self._wire.send(offer)

    async def _read(self, text: str) -> FromRunner:
        if len(text) > FRAME_MAX_BYTES:
            await self._leave(TOO_BIG, f"a message of more than {FRAME_MAX_BYTES} characters")
        try:
            return read_from_runner(text)
        except ProtocolError as error:
            # One of us is wrong about the protocol, and guessing which message was meant helps nobody.
            await self._leave(PROTOCOL_ERROR, str(error))

    async def _answer(self, message: FromRunner) -> Body:
        try:
            if isinstance(message, RunnerHello):
                return Refused(re=message.id, reason=RefusalReason.INVALID, message="hello was said before")
            if isinstance(message, Wanting):
                return self._wanted(message)
            if isinstance(message, StillAlive):
                return await self._alive(message)
            if isinstance(message, LiveOutput):
                return await self._live_output(message)
            return await self._about_job(message)
        except StoreUnavailable as error:
            _log.warning("message not taken", runner=str(self._runner.id), told=message.event, error=str(error))
            return Refused(re=message.id, reason=RefusalReason.BUSY, message=error.found)

    def _wanted(self, message: Wanting) -> Body:
        if message.received > self._claims.sent:
            return Refused(re=message.id, reason=RefusalReason.INVALID, message=f"{self._claims.sent} jobs were sent")
        self._claims.want(message)
        return Taken(re=message.id)

    async def _alive(self, message: StillAlive) -> Body:
        moved = await self._desk.heartbeat({held.job: self._holder(held.lease) for held in message.jobs})
        now_s = self._context.clock.monotonic_s()
        if now_s - self._seen_s >= _SEEN_EVERY_S:
            self._seen_s = now_s
            await self._desk.seen(self._runner.id, connected=False)
        lost = tuple(held for held in message.jobs if not _is_held(moved[held.job]))
        for held in lost:
            self._release(held.job, held.lease)
        return Taken(re=message.id, lost=lost)

    async def _live_output(self, message: LiveOutput) -> Body:
        new = [
            NewChunk(iteration=chunk.iteration, stream=OutputStream[chunk.stream.upper()], content=chunk.data)
            for chunk in message.chunks
        ]
        now = self._context.clock.now()

        async def work(connection: Connection) -> Appended:
            return await append_output(
                connection,
                job=message.job,
                runner=self._runner.id,
                lease=message.lease,
                offset=message.offset,
                new=new,
                now=now,
            )

        appended = await self._context.store.write(work)
        if appended is Appended.STORED:
            return Taken(re=message.id)
        full = appended is Appended.FULL
        return Refused(re=message.id, reason=RefusalReason.TOO_MUCH_OUTPUT if full else RefusalReason.STALE_LEASE)

    async def _about_job(self, message: Attach | Began | PhaseTold | JobEnd) -> Body:
        holder = self._holder(message.lease)
        if isinstance(message, PhaseTold):
            if await self._desk.phase(message.job, holder, message.phase, iteration=message.iteration):
                return Taken(re=message.id)
            return Refused(re=message.id, reason=RefusalReason.STALE_LEASE)
        if isinstance(message, Attach):
            held = await self._still_held((HeldLease(job=message.job, lease=message.lease),))
            return Taken(re=message.id) if held else Refused(re=message.id, reason=RefusalReason.STALE_LEASE)
        if isinstance(message, Began):
            return self._told(
                message, await self._desk.start(message.job, holder, began=True, iteration=message.iteration)
            )
        return await self._ended(message, holder)

    def _told(self, message: Began | JobEnd, moved: Moved | None) -> Body:
        if moved is None or moved.foreign:
            self._release(message.job, message.lease)
            return Refused(re=message.id, reason=RefusalReason.STALE_LEASE)
        if moved.effect in (Effect.STOP, Effect.REFUSE):
            self._release(message.job, message.lease)
            return Refused(re=message.id, reason=RefusalReason.OVER, message=f"the job is {moved.job.status}")
        return Taken(re=message.id)

    async def _ended(self, message: JobEnd, holder: LeaseHolder) -> Body:
        output: JobOutput | StoredOutput | None = None
        error = message.error if isinstance(message, Broke) else None
        if message.uploaded is not None:
            output = await self._uploaded(message, holder)
            if output is None:
                return Refused(re=message.id, reason=RefusalReason.NOT_UPLOADED)
        elif message.results is not None:
            output = JobOutput(results=message.results, error=error, host=message.host, phases=message.phases)
        elif isinstance(message, Succeeded):
            return Refused(re=message.id, reason=RefusalReason.INVALID, message="there are no results")
        ending = Ending(
            event=_END_EVENTS[type(message)],
            output=output,
            error=error,
            infrastructure=isinstance(message, Broke) and message.infrastructure,
            iterations=message.iterations or (),
        )
        # The end is the runner's own: it is not told of it as of somebody else's doing.
        self._release(message.job, message.lease)
        try:
            return self._told(message, await self._desk.end(message.job, holder, ending))
        except StoreUnavailable:
            self._hold(message.job, message.lease)
            raise

    async def _uploaded(self, message: JobEnd, holder: LeaseHolder) -> StoredOutput | None:
        job = await self._desk.read(message.job)
        if job is None or job.runner != holder.runner or job.lease != holder.lease or message.uploaded is None:
            # Whatever is there is another's; the lease is looked at again, and then refused as such.
            return StoredOutput(key="none", size_bytes=0, digest="sha256:")
        key = output_key(job, message.uploaded.checksum)
        facts = await self._context.blobs.facts(key)
        if facts is None or facts.size_bytes != message.uploaded.size_bytes:
            return None
        return StoredOutput(key=key, size_bytes=facts.size_bytes, digest=f"sha256:{message.uploaded.checksum}")

    async def _claim_jobs(self, connection: anyio.CancelScope) -> None:
        try:
            await self._claims.run(self._capabilities)
        except Gone:
            connection.cancel()

    async def _hand_over(self, claimed: ClaimedJob) -> None:
        self._hold(claimed.job, claimed.lease)
        await self._wire.send(leased(claimed, self._context.signer, self._context.clock.now()))

    async def _look_at_jobs(self, connection: anyio.CancelScope) -> None:
        """Tell the runner to stop jobs that are canceled or no longer its own, the moment they are."""
        try:
            while True:
                await self._doubts.wait()
                self._doubts = anyio.Event()
                doubtful, self._doubtful = list(self._doubtful), {}
                await self._settle(doubtful)
        except Gone:
            connection.cancel()

    async def _settle(self, doubtful: list[UUID]) -> None:
        for job in doubtful:
            holder = self._held.get(job)
            if holder is None or holder.lease is None:
                continue
            try:
                found = await self._desk.read(job)
            except StoreUnavailable:
                await self._context.clock.sleep_s(_PAUSE_S)
                self.job_changed(job)
                continue
            mine = found is not None and (found.runner, found.lease) == (holder.runner, holder.lease)
            over = found is None or not mine or not found.status.is_active
            # While the store was read, the runner may have ended the job itself.
            if over and self._held.get(job) is holder:
                self._release(job, holder.lease)
                await self._wire.send(StopJob(job=job, lease=holder.lease))

    def _holder(self, lease: int) -> LeaseHolder:
        return LeaseHolder(runner=self._runner.id, lease=lease)

    def _hold(self, job: UUID, lease: int) -> None:
        self._held[job] = self._holder(lease)
        self._context.channels.watch(self, job)

    def _release(self, job: UUID, lease: int) -> None:
        if self._held.get(job) == self._holder(lease):
            del self._held[job]
            self._context.channels.unwatch(self, job)

    async def _leave(self, code: int, reason: str) -> Never:
        await self._wire.close(code, reason)
        raise Gone


_END_EVENTS: dict[type[Body], JobEvent] = {
    Succeeded: JobEvent.COMPLETE,
    Broke: JobEvent.FAIL,
    Stopped: JobEvent.RUNNER_CANCEL,
}


def _jobs_of(message: FromRunner) -> tuple[UUID, ...]:
    """Return the jobs that a message names."""
    if isinstance(message, StillAlive):
        return tuple(held.job for held in message.jobs)
    return () if isinstance(message, RunnerHello | Wanting) else (message.job,)


def _is_held(moved: Moved | None) -> bool:
    return moved is not None and not moved.foreign and moved.job.status.is_active


def _capabilities(hello: RunnerHello) -> Capabilities:
    proved = hello.capabilities
    return Capabilities(
        os=proved.os,
        architecture=proved.architecture,
        sandboxes=frozenset("" if name == "none" else name for name in proved.sandboxes),
        vcpus=proved.vcpus,
        memory_bytes=proved.memory_bytes,
        disk_bytes=proved.disk_bytes,
        network=proved.network,
    )
