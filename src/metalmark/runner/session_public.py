"""One connection to a server that speaks the public messages only: one job at a time, acknowledgements without numbers.

Such a server forgets with the connection which job it carried. A job that is interrupted so runs to its end all the
same, and its end is told over a later connection, before another job is asked for. Ends are told again until they are
acknowledged, however long that takes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

import anyio
import structlog

from metalmark.model import ChannelLost
from metalmark.runner.assignment import Assignment
from metalmark.runner.end_file import EndKind, SpooledEnd
from metalmark.runner.end_message import public_end
from metalmark.runner.job_in_hand import JobInHand
from metalmark.runner.jobs_in_hand import JobsInHand
from metalmark.runner.link_observer import LinkObserver
from metalmark.runner.runner_identity import RunnerIdentity
from metalmark.runner.self_update import Updates
from metalmark.runner.session_pace import SessionPace
from metalmark.runner.texts import Texts
from metalmark.system import in_thread
from metalmark.wire import (
    INLINE_OUTPUT_MAX_BYTES,
    Ack,
    Body,
    CancelJob,
    JobMessage,
    NoJob,
    RunnerHeartbeat,
    RunnerMetadata,
    RunnerReady,
    RunnerRunning,
    ServerMessage,
    TerminalMessage,
    UpdateOffer,
    channel_text,
    read_server_message,
)

_RESENDS = 5
_PATIENCE = 10
"""Connections on which an end was told in vain before it is told without its results."""
_STOPPED_PATIENCE = 2
"""The same before a canceled job is told as failed: a server that failed it already knows no way from there."""
_MESSAGE_MAX_BYTES = 64 * 1024 * 1024
"""Largest results that are offered at all: most servers take less, and say so by ending the connection."""
_TOO_BIG = 1009
_PROTOCOL_ERROR = 1002
_log = structlog.get_logger(__name__)


@dataclass(kw_only=True)
class _Delivery:
    """How telling of one end went so far."""

    in_vain: int = 0
    too_big: bool = False
    """The server said so."""
    misfit: bool = False
    """The server said that this end does not fit the state that the job is in."""


@dataclass(kw_only=True)
class PublicMemory:
    """What the connections to one server have to know of each other."""

    deliveries: dict[UUID, _Delivery] = field(default_factory=dict)
    offered_s: float | None = None
    """When the latest offer of an update came."""


class PublicSession:
    """One connection, from its opening to its end.

    Args:
        connection: Open, without a sub-protocol.
        identity: Who connects.
        jobs: The jobs in hand.
        updates: Takes offers of another version.
        observer: Is told that the channel works.
        memory: Shared by all connections to the server.
        pace: Times.
        deliver_only: Whether to leave once no job of such a server is in hand.
    """

    def __init__(
        self,
        connection: Texts,
        *,
        identity: RunnerIdentity,
        jobs: JobsInHand,
        updates: Updates,
        observer: LinkObserver,
        memory: PublicMemory,
        pace: SessionPace,
        deliver_only: bool = False,
    ) -> None:
        self._connection = connection
        self._identity = identity
        self._jobs = jobs
        self._updates = updates
        self._observer = observer
        self._memory = memory
        self._pace = pace
        self._deliver_only = deliver_only
        self._unanswered = 0
        self.worked = False
        """Whether the server answered a ``ready``."""

    async def run(self) -> None:
        """Serve the connection until it is over, or is better left: then it returns.

        Raises:
            ChannelLost: It is over.
            ProtocolError: The server said what it must not.
        """
        self._observer.connected("public", "")
        while True:
            seen = self._jobs.version
            holding = self._jobs.holding()
            if self._deliver_only and all(job.lease for job in holding):
                return
            ended = next((job for job in holding if job.end is not None), None)
            if ended is not None and ended.end is not None:
                await self._deliver(ended, ended.end)
            elif holding or not self._jobs.free_slots:
                # A job of an earlier connection, of which this one cannot speak before it is over; or claiming stopped.
                await self._hear(seen=seen)
            elif (assignment := await self._poll()) is not None:
                self._jobs.take(assignment)
                job = self._jobs.find(assignment.job, assignment.lease)
                if job is not None:
                    await self._accompany(job)
            elif not self._jobs.free_slots:
                # The server looks for a job still, and stops that only when the connection is over.
                return

    async def _poll(self) -> Assignment | None:
        """Ask for a job; return None when there was none, or no more is wanted."""
        poll_s = self._pace.public_trial_poll_s if self._updates.on_trial else self._pace.public_poll_s
        await self._say(RunnerReady(poll_timeout=poll_s, runner=self._metadata()))
        limit_s = poll_s + self._pace.public_poll_margin_s
        until = anyio.current_time() + limit_s
        while self._jobs.free_slots:
            message = await self._hear(until=until, seen=self._jobs.version)
            if isinstance(message, JobMessage | NoJob):
                self._confirm()
                return Assignment.of_public(message) if isinstance(message, JobMessage) else None
            if isinstance(message, UpdateOffer):
                self._memory.offered_s = anyio.current_time()
                self._updates.offered(message.version, message.url, message.checksum)
                raise ChannelLost("the server offered another version, and ends the connection then")
            if isinstance(message, CancelJob):
                raise ChannelLost("the server canceled a job when there was none")
            # An acknowledgement is a late one, of the job before.
            if message is None and anyio.current_time() >= until:
                raise ChannelLost(f"the server did not answer a ready within {limit_s:g} s")
        return None

    def _metadata(self) -> RunnerMetadata | None:
        """Return what the server is told for its offers. After one it is told nothing for a while, and gives jobs."""
        offered_s = self._memory.offered_s
        if self._updates.checksum is None:
            return None
        if offered_s is not None and anyio.current_time() - offered_s < self._pace.offer_again_s:
            return None
        return self._identity.metadata

    def _confirm(self) -> None:
        if not self.worked:
            self.worked = True
            self._updates.acknowledged()
            self._observer.confirmed()

    async def _accompany(self, job: JobInHand) -> None:
        """Say that a job runs until it is over, and stop it when the server says so."""
        await self._say(RunnerRunning())
        self._unanswered += 1
        said_s = heard_s = anyio.current_time()
        canceled = False
        while job.end is None and self._jobs.find(job.job, job.lease) is job:
            # One message at a time, so that every acknowledgement is known to be of which; some servers skip one.
            pause_s = self._pace.public_ack_s if self._unanswered else self._pace.public_beat_s
            until = None if canceled else said_s + pause_s
            message = await self._hear(until=until, seen=self._jobs.version)
            now_s = anyio.current_time()
            if isinstance(message, Ack | CancelJob):
                heard_s = now_s
                self._unanswered = max(0, self._unanswered - 1)
            if isinstance(message, CancelJob) and not canceled:
                # The server is through with the job: a heartbeat would have no answer any more.
                canceled = True
                job.cancel("the server canceled it")
            if canceled or job.end is not None:
                continue
            if self._unanswered and now_s - heard_s > self._pace.answer_s:
                raise ChannelLost(f"the server answered no heartbeat for {self._pace.answer_s:g} s")
            if now_s >= said_s + (self._pace.public_ack_s if self._unanswered else self._pace.public_beat_s):
                await self._say(RunnerHeartbeat())
                self._unanswered += 1
                said_s = now_s

    async def _deliver(self, job: JobInHand, end: SpooledEnd) -> None:
        delivery = self._memory.deliveries.setdefault(end.job, _Delivery())
        message = await in_thread(_message_of, end, delivery)
        try:
            await self._until_acknowledged(message)
        except ChannelLost as error:
            delivery.in_vain += 1
            delivery.too_big |= error.code == _TOO_BIG
            delivery.misfit |= error.code == _PROTOCOL_ERROR
            raise
        self._memory.deliveries.pop(end.job, None)
        await self._jobs.acknowledged(job.job, job.lease)

    async def _until_acknowledged(self, message: TerminalMessage) -> None:
        for attempt in range(1 + _RESENDS):
            await self._say(message)
            until = anyio.current_time() + self._pace.public_ack_s
            while anyio.current_time() < until:
                answer = await self._hear(until=until)
                if not isinstance(answer, Ack) or (not attempt and answer.job != message.job):
                    continue
                if not self._unanswered:
                    return
                # Of a heartbeat before: the end itself is not stored because of it.
                self._unanswered -= 1
        raise ChannelLost(f"the server does not acknowledge the end of job {message.job}")

    async def _say(self, message: Body) -> None:
        await self._connection.send(channel_text(message))

    async def _hear(self, *, until: float | None = None, seen: int | None = None) -> ServerMessage | None:
        """Return the next message; None when the time is over, or something changed beyond what was seen."""
        text: str | None = None
        lost: ChannelLost | None = None
        async with anyio.create_task_group() as tasks:
            if until is not None:
                tasks.cancel_scope.deadline = until

            async def watch(beyond: int) -> None:
                await self._jobs.changed(beyond)
                tasks.cancel_scope.cancel()

            if seen is not None:
                tasks.start_soon(watch, seen)
            try:
                text = await self._connection.receive()
            except ChannelLost as error:
                # Kept, for what leaves a task group comes out wrapped.
                lost = error
            tasks.cancel_scope.cancel()
        if lost is not None:
            raise lost
        return None if text is None else read_server_message(text)


def _message_of(end: SpooledEnd, delivery: _Delivery) -> TerminalMessage:
    """Return the message of an end, changed when the server let it down often enough. Blocking."""
    reason = ""
    if (
        end.size_bytes > _MESSAGE_MAX_BYTES
        or delivery.too_big
        or (delivery.in_vain >= _PATIENCE and end.size_bytes > INLINE_OUTPUT_MAX_BYTES)
    ):
        reason = f"the server does not take results of {end.size_bytes} bytes"
        _log.error("result told without its output", job=str(end.job), size_bytes=end.size_bytes)
    stopped_in_vain = end.kind is EndKind.CANCELED and (delivery.misfit or delivery.in_vain >= _STOPPED_PATIENCE)
    return public_end(end, without_results=reason, as_failure=stopped_in_vain)
