"""One connection to a server of ours, sub-protocol ``metalmark.1``.

It says whatever the server was not told yet of the jobs in hand, and keeps saying it until it is taken: what is true
now counts, not what happened, so that a new connection is like any other. `JobsInHand` holds the truth; what was told
is known to this connection alone.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from uuid import UUID

import anyio
import structlog
from anyio.abc import TaskGroup
from pydantic import JsonValue

from metalmark.model import ChannelLost, MetalmarkError, ProtocolError
from metalmark.runner.assignment import Assignment
from metalmark.runner.end_teller import Upload
from metalmark.runner.job_teller import JobTeller
from metalmark.runner.job_voice import Answered, JobVoice
from metalmark.runner.jobs_in_hand import JobsInHand
from metalmark.runner.link_observer import LinkObserver
from metalmark.runner.runner_identity import RunnerIdentity
from metalmark.runner.self_update import Updates
from metalmark.runner.session_pace import SessionPace
from metalmark.runner.texts import Texts
from metalmark.system import Clock
from metalmark.wire import (
    FACTS_MAX_BYTES,
    INLINE_OUTPUT_MAX_BYTES,
    SLOTS_MAX,
    SUBPROTOCOL,
    Body,
    FromServer,
    HeldLease,
    LeasedJob,
    NewVersion,
    Refused,
    RunnerHello,
    StillAlive,
    StopJob,
    Taken,
    Wanting,
    Welcome,
    channel_text,
    read_from_server,
)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """A message that was not answered yet."""

    event: str
    until: float
    answered: Answered


class OwnSession:
    """One connection, from hello to its end.

    Args:
        connection: Open, the sub-protocol agreed on.
        identity: Who connects.
        jobs: The jobs in hand.
        updates: Takes offers of another version.
        observer: Is told that the channel works.
        clock: Waits.
        upload: Uploads an end's document.
        pace: Times.
    """

    def __init__(
        self,
        connection: Texts,
        *,
        identity: RunnerIdentity,
        jobs: JobsInHand,
        updates: Updates,
        observer: LinkObserver,
        clock: Clock,
        upload: Upload,
        pace: SessionPace,
    ) -> None:
        self._connection = connection
        self._identity = identity
        self._jobs = jobs
        self._updates = updates
        self._observer = observer
        self._clock = clock
        self._upload = upload
        self._pace = pace
        self._id = 0
        self._asked: dict[int, _Asked] = {}
        self._tellers: dict[tuple[UUID, int], JobTeller] = {}
        self._received = 0
        self._room: int | None = None
        self._beat_s = pace.beat_max_s
        self._beat_due = False
        self._beating = False
        self._inline_max = INLINE_OUTPUT_MAX_BYTES
        self._wake = anyio.Event()
        self._over: MetalmarkError | None = None
        self._tasks: TaskGroup | None = None
        self.worked = False
        """Whether the server took a ``ready``."""

    async def run(self) -> None:
        """Serve the connection until it is over.

        Raises:
            ChannelLost: It is over.
            ProtocolError: The server said what it must not.
        """
        await self._greet()
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            for work in (self._hear, self._tell, self._watch, self._beat):
                self.start(work)
        if self._over is not None:
            raise self._over

    async def _greet(self) -> None:
        held, identity = self._leases(), self._identity
        hello = RunnerHello(
            id=self._next_id(),
            version=identity.version,
            process=identity.process,
            boot=identity.boot,
            capabilities=identity.capabilities,
            facts=self._facts(),
            holding=held,
            checksum=self._updates.checksum,
        )
        await self._connection.send(channel_text(hello))
        welcome: FromServer | None = None
        with anyio.move_on_after(self._pace.answer_s):
            welcome = read_from_server(await self._connection.receive())
        if welcome is None:
            raise ChannelLost(f"the server did not answer a hello within {self._pace.answer_s:g} s")
        if not isinstance(welcome, Welcome):
            raise ProtocolError(f"the server answered a hello with {welcome.event}")
        self._beat_s = min(self._pace.beat_max_s, welcome.heartbeat_timeout_s / 6)
        self._inline_max = min(INLINE_OUTPUT_MAX_BYTES, welcome.inline_output_max_bytes)
        self._observer.connected(SUBPROTOCOL, welcome.version)
        self._drop(lease for lease in held if lease not in welcome.held)

    def _facts(self) -> dict[str, JsonValue] | None:
        facts = dict(self._identity.facts)
        if len(json.dumps(facts)) <= FACTS_MAX_BYTES:
            return facts
        # They are for people to read; the server would not have the runner at all.
        _log.warning("the host's facts are too long to be told", bytes_max=FACTS_MAX_BYTES)
        return None

    # What a job's teller needs

    async def ask(self, message: Callable[[int], Body], answered: Answered, *, limit_s: float) -> None:
        """Send a message, made with its number; its answer is handed over within the limit, or the connection ends."""
        number = self._next_id()
        made = message(number)
        until = anyio.current_time() + limit_s
        self._asked[number] = _Asked(event=str(getattr(made, "event", "")), until=until, answered=answered)
        await self._connection.send(channel_text(made))

    def look_again(self) -> None:
        """Look for what is to be said."""
        self._wake.set()

    async def pause(self, seconds: float) -> None:
        """Wait."""
        await self._clock.sleep_s(seconds)

    def start(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do something for as long as the connection is there; what it raises ends the connection."""
        assert self._tasks is not None
        self._tasks.start_soon(self._until_over, work)

    async def _until_over(self, work: Callable[[], Awaitable[None]]) -> None:
        # Caught in here: what leaves a task group comes out wrapped.
        try:
            await work()
        except MetalmarkError as error:
            self._over = self._over or error
            assert self._tasks is not None
            self._tasks.cancel_scope.cancel()

    # What is said

    async def _watch(self) -> None:
        seen = -1
        while True:
            seen = await self._jobs.changed(seen)
            self._wake.set()

    async def _tell(self) -> None:
        while True:
            # Made before anything is looked at, so that no change falls between looking and waiting.
            self._wake = anyio.Event()
            await self._tell_alive()
            await self._tell_room()
            jobs = {(job.job, job.lease): job for job in self._jobs.holding() if job.lease}
            for gone in self._tellers.keys() - jobs.keys():
                del self._tellers[gone]
            for key, job in jobs.items():
                if key not in self._tellers or self._tellers[key].job is not job:
                    voice = JobVoice(job, jobs=self._jobs, asking=self, pace=self._pace)
                    self._tellers[key] = JobTeller(voice, upload=self._upload, inline_max=self._inline_max)
                await self._tellers[key].tell()
            await self._wake.wait()

    async def _tell_room(self) -> None:
        """Say how many more jobs fit. A job that was received and fills its place changes nothing of it."""
        slots, received = min(self._free_slots(), SLOTS_MAX), self._received
        if self._room == slots + received:
            return
        self._room = slots + received

        async def answered(answer: Taken | Refused) -> None:
            if isinstance(answer, Refused):
                _log.warning("ready refused", reason=str(answer.reason), message=answer.message)
                self.start(self._ask_for_jobs_again)
            elif not self.worked:
                self.worked = True
                self._updates.acknowledged()
                self._observer.confirmed()

        await self.ask(
            lambda number: Wanting(id=number, slots=slots, received=received), answered, limit_s=self._pace.answer_s
        )

    def _free_slots(self) -> int:
        # An upload beside a benchmark would be measured with it.
        uploads = any(job.end is not None and job.end.size_bytes > self._inline_max for job in self._jobs.holding())
        return 0 if uploads else self._jobs.free_slots

    async def _ask_for_jobs_again(self) -> None:
        await self.pause(self._pace.again_s)
        self._room = None
        self._wake.set()

    async def _beat(self) -> None:
        while True:
            await self._clock.sleep_s(self._beat_s)
            now = anyio.current_time()
            late = next((asked for asked in self._asked.values() if asked.until < now), None)
            if late is not None:
                raise ChannelLost(f"the server did not answer {late.event or 'a message'} in time")
            self._beat_due = True
            self._wake.set()

    async def _tell_alive(self) -> None:
        if not self._beat_due or self._beating:
            return
        self._beat_due, self._beating = False, True

        async def answered(answer: Taken | Refused) -> None:
            self._beating = False
            if isinstance(answer, Taken):
                self._drop(answer.lost)

        leases = self._leases()
        await self.ask(lambda number: StillAlive(id=number, jobs=leases), answered, limit_s=self._pace.answer_s)

    def _leases(self) -> tuple[HeldLease, ...]:
        """Return the leases in hand, running jobs first. Lease 0 is of a server of public messages."""
        held = sorted((job for job in self._jobs.holding() if job.lease), key=lambda job: job.end is not None)
        return tuple(HeldLease(job=job.job, lease=job.lease) for job in held[:SLOTS_MAX])

    # What is heard

    async def _hear(self) -> None:
        while True:
            await self._take(read_from_server(await self._connection.receive()))

    async def _take(self, message: FromServer) -> None:
        if isinstance(message, Taken | Refused):
            asked = None if message.re is None else self._asked.pop(message.re, None)
            if asked is not None:
                await asked.answered(message)
            self._wake.set()
        elif isinstance(message, LeasedJob):
            self._received += 1
            self._jobs.take(Assignment.of_lease(message))
            self._wake.set()
        elif isinstance(message, StopJob):
            job = self._jobs.find(message.job, message.lease)
            if job is not None and job.end is None:
                job.cancel("the server canceled it")
        elif isinstance(message, NewVersion):
            self._updates.offered(message.version, message.url, message.checksum)
        else:
            raise ProtocolError(f"the server said {message.event} a second time")

    def _drop(self, leases: Iterable[HeldLease]) -> None:
        for lease in leases:
            job = self._jobs.find(lease.job, lease.lease)
            # The end of a job is told all the same: it may still count, and the answer says whether it does.
            if job is not None and job.end is None:
                _log.warning("job lost", job=str(lease.job), lease=lease.lease)
                self._jobs.lost(lease.job, lease.lease)

    def _next_id(self) -> int:
        self._id = (self._id + 1) % 2**32
        return self._id
