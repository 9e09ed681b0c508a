"""The channel of a public runner: one job at a time, acknowledgements without numbers, states of the connection.

Idle, then polling while the runner waits for a job, then executing until the job ended. A job that its connection
leaves goes on under its lease; its result may come over any later connection.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Never
from uuid import UUID

import anyio
import structlog

from metalmark.model import (
    Effect,
    EndReason,
    JobEvent,
    MetalmarkError,
    ProtocolError,
    StoreUnavailable,
    public_runner,
)
from metalmark.server.channel_job import handed_over
from metalmark.server.channel_wire import NORMAL, PROTOCOL_ERROR, ChannelWire, Gone, Silence
from metalmark.server.channels import ProcessIdentity
from metalmark.server.job_desk import Ending, JobDesk
from metalmark.server.update_offers import offer_for_public
from metalmark.store import ClaimedJob, LeaseHolder, Moved, RunnerRecord
from metalmark.wire import (
    Ack,
    CancelJob,
    JobCanceled,
    JobCompleted,
    JobFailed,
    JobOutput,
    NoJob,
    RunnerHeartbeat,
    RunnerMessage,
    RunnerReady,
    RunnerRunning,
    TerminalMessage,
    read_runner_message,
)

if TYPE_CHECKING:
    from metalmark.server.context import ServerContext

_TOUCH_EVERY_S = 10.0
_SEEN_EVERY_S = 30.0
_TRIES = 5
_TRY_AGAIN_S = 0.5
_log = structlog.get_logger(__name__)


class PublicSession:
    """One connection of a public runner."""

    def __init__(self, context: ServerContext, runner: RunnerRecord, wire: ChannelWire) -> None:
        self._context = context
        self._runner = runner
        self._wire = wire
        self._desk = JobDesk(context)
        self._changed = False
        self._seen_s = 0.0

    @property
    def runner_id(self) -> UUID:
        """Whose connection it is."""
        return self._runner.id

    @property
    def identity(self) -> ProcessIdentity | None:
        """Not known."""
        return None

    async def answers(self, within_s: float) -> bool:
        """Whether the runner gives a sign of life in time."""
        return await self._wire.answers(within_s)

    async def close(self, code: int, reason: str) -> None:
        """End the connection with a close frame."""
        await self._wire.close(code, reason)

    def job_changed(self, job: UUID | None) -> None:  # noqa: ARG002  # there is but one
        """Look at the job with its next heartbeat; the runner reads nothing that it did not ask for."""
        self._changed = True

    async def run(self) -> None:
        """Serve the connection until it is over."""
        try:
            await self._seen(connected=True)
            while True:
                ready = await self._idle()
                await self._seen()
                await self._offer_update(ready)
                claimed = await self._polling(ready)
                if claimed is not None:
                    await self._executing(claimed)
        except Gone:
            return

    async def _seen(self, *, connected: bool = False) -> None:
        """Keep that the runner is there, now and then."""
        now_s = self._context.clock.monotonic_s()
        if not connected and now_s - self._seen_s < _SEEN_EVERY_S:
            return
        self._seen_s = now_s
        try:
            await self._desk.seen(self._runner.id, connected=connected)
        except StoreUnavailable as error:
            _log.warning("sign of life not kept", runner=str(self._runner.id), error=str(error))

    async def _idle(self) -> RunnerReady:
        while True:
            text = await self._awaited_text()
            try:
                message = read_runner_message(text)
            except ProtocolError as error:
                await self._leave(PROTOCOL_ERROR, str(error))
            if isinstance(message, RunnerReady):
                return message
            if isinstance(message, TerminalMessage):
                await self._late(message)

    async def _awaited_text(self) -> str:
        """Return the next text; a runner that sends no frame of any kind for the length of a lease is let go."""
        wait_s = self._desk.lease_s
        while True:
            text = await self._wire.receive(wait_s)
            if isinstance(text, str):
                return text
            silent_s = self._wire.silent_s()
            if text is Silence.TIMEOUT and (silent_s is None or silent_s >= self._desk.lease_s):
                await self._leave(NORMAL, json.dumps(str(EndReason.HEARTBEAT_TIMEOUT)))
            wait_s = self._desk.lease_s - (silent_s or 0.0)

    async def _offer_update(self, ready: RunnerReady) -> None:
        """Tell the runner of another version, if one was published for it, and let it go: it comes back with it."""
        offer = await offer_for_public(self._context, ready.runner)
        if offer is not None:
            _log.info("update offered", runner=str(self._runner.id), version=offer.version)
            await self._wire.send(offer)
            await self._leave(NORMAL, "another version of the runner is offered")

    async def _polling(self, ready: RunnerReady) -> ClaimedJob | None:
        """Wait for a job with the runner; return it once the runner was told, or None when there was none."""
        found: list[ClaimedJob] = []
        said = ready.runner
        capabilities = public_runner() if said is None else public_runner(os=said.os, architecture=said.arch)
        deadline_s = self._context.clock.monotonic_s() + ready.poll_timeout_s
        try:
            async with anyio.create_task_group() as tasks:

                async def claim() -> None:
                    job = await self._context.dispatcher.wait_for_job(
                        runner=self._runner.id,
                        capabilities=capabilities,
                        key_digest=self._runner.key_digest,
                        deadline_s=deadline_s,
                    )
                    if job is not None:
                        found.append(job)
                    tasks.cancel_scope.cancel()

                tasks.start_soon(claim)
                await self._while_polling()
        except BaseExceptionGroup as group:
            await self._given_back(found)
            raise _first(group) from None
        except BaseException:
            await self._given_back(found)
            raise
        if not found:
            await self._wire.send(NoJob())
            return None
        return found[0] if await self._hand_over(found[0]) else None

    async def _while_polling(self) -> None:
        while True:
            text = await self._wire.receive(3600.0)
            if isinstance(text, str):
                try:
                    message = read_runner_message(text)
                except ProtocolError:
                    continue
                if isinstance(message, TerminalMessage):
                    # A job that is found meanwhile waits for the result to be stored.
                    with anyio.CancelScope(shield=True):
                        await self._late(message)

    async def _hand_over(self, claimed: ClaimedJob) -> bool:
        try:
            message = handed_over(claimed, self._context.signer, self._context.clock.now())
            await self._wire.send(message)
        except ValueError as error:
            # Given back, it would come again and again.
            _log.error("a job's stored configuration is of another version", job=str(claimed.job), error=str(error))
            holder = LeaseHolder(runner=claimed.runner, lease=claimed.lease)
            ending = Ending(event=JobEvent.FAIL, error="the stored configuration cannot be read", infrastructure=False)
            await self._desk.end(claimed.job, holder, ending)
            await self._wire.send(NoJob())
            return False
        except BaseException:
            await self._given_back([claimed])
            raise
        return True

    async def _given_back(self, claimed: list[ClaimedJob]) -> None:
        with anyio.CancelScope(shield=True):
            for job in claimed:
                try:
                    await self._desk.give_back(job)
                except MetalmarkError as error:
                    # Its lease runs out, and then it is dealt with like that of any runner that is lost.
                    _log.warning("job not given back", job=str(job.job), error=str(error))

    async def _executing(self, claimed: ClaimedJob) -> None:
        holder = LeaseHolder(runner=self._runner.id, lease=claimed.lease)
        clock = self._context.clock
        heard_s = touched_s = clock.monotonic_s()
        with self._context.channels.watching(self, claimed.job):
            while True:
                text = await self._wire.receive(heard_s + self._desk.lease_s - clock.monotonic_s())
                if text is Silence.TIMEOUT:
                    await self._silence(claimed, holder)
                    continue
                if not isinstance(text, str):
                    continue
                try:
                    message = read_runner_message(text)
                except ProtocolError:
                    continue
                if isinstance(message, RunnerReady):
                    await self._wire.send(Ack(job=claimed.job))
                    continue
                heard_s = clock.monotonic_s()
                if isinstance(message, TerminalMessage) and message.job != claimed.job:
                    await self._late(message)
                    continue
                if isinstance(message, RunnerHeartbeat) and not self._changed and heard_s - touched_s < self._pace_s:
                    await self._wire.send(Ack(job=claimed.job))
                    continue
                self._changed = False
                try:
                    over = await self._about(claimed.job, holder, message)
                except StoreUnavailable as error:
                    # A heartbeat comes again in a second, and a result in five.
                    _log.warning("message not taken", job=str(claimed.job), error=str(error))
                    self._changed = True
                    continue
                touched_s = clock.monotonic_s()
                if over:
                    return
                await self._seen()

    @property
    def _pace_s(self) -> float:
        # A runner beats each second; a lease that was extended a moment ago need not be again.
        return min(_TOUCH_EVERY_S, self._desk.lease_s / 6)

    async def _about(self, job: UUID, holder: LeaseHolder, message: RunnerMessage) -> bool:
        """Carry out a message about the job at hand and answer it; return whether the job is over."""
        if isinstance(message, TerminalMessage):
            await self._answer_end(job, await self._ended(job, holder, message))
            return True
        if isinstance(message, RunnerRunning):
            moved = await self._desk.start(job, holder, began=False)
        else:
            moved = (await self._desk.heartbeat({job: holder}))[job]
        if moved is None or moved.foreign or moved.effect is Effect.STOP:
            # Deleted, or given to another: there is nothing this runner could still do for it.
            await self._wire.send(CancelJob())
            return True
        await self._wire.send(Ack(job=job))
        return False

    async def _late(self, message: TerminalMessage) -> None:
        """Take a result that comes when no job is at hand: of a job that an earlier connection was given."""
        holder = LeaseHolder(runner=self._runner.id)
        for attempt in range(_TRIES):
            try:
                moved = await self._ended(message.job, holder, message)
            except StoreUnavailable as error:
                _log.warning("result not taken", job=str(message.job), error=str(error), attempt=attempt)
                await self._context.clock.sleep_s(_TRY_AGAIN_S)
                continue
            await self._answer_end(message.job, moved)
            return

    async def _answer_end(self, job: UUID, moved: Moved | None) -> None:
        if moved is not None and moved.effect is Effect.REFUSE:
            await self._leave(PROTOCOL_ERROR, f"not possible for a job that is {moved.job.status}")
        await self._wire.send(Ack(job=job))

    async def _ended(self, job: UUID, holder: LeaseHolder, message: TerminalMessage) -> Moved | None:
        if isinstance(message, JobCompleted):
            ending = Ending(event=JobEvent.COMPLETE, output=JobOutput(results=message.results))
        elif isinstance(message, JobFailed):
            output = JobOutput(results=message.results, error=message.error)
            ending = Ending(event=JobEvent.FAIL, output=output, error=message.error)
        else:
            assert isinstance(message, JobCanceled)
            ending = Ending(event=JobEvent.RUNNER_CANCEL)
        return await self._desk.end(job, holder, ending)

    async def _silence(self, claimed: ClaimedJob, holder: LeaseHolder) -> None:
        """End a job whose runner is silent on an open connection, and the connection with it."""
        reason = EndReason.HEARTBEAT_TIMEOUT
        try:
            job = await self._desk.silent(claimed.job, holder)
            if job is not None and job.end_reason is EndReason.JOB_TIMEOUT_EXCEEDED:
                reason = EndReason.JOB_TIMEOUT_EXCEEDED
        except StoreUnavailable as error:
            _log.warning("silent runner", job=str(claimed.job), error=str(error))
        await self._leave(NORMAL, json.dumps(str(reason)))

    async def _leave(self, code: int, reason: str) -> Never:
        await self._wire.close(code, reason)
        raise Gone


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
