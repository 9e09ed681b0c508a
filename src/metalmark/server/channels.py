"""The open channels of this process: who waits for news of which job, and which connection of a runner is the one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

import anyio
import structlog
from anyio.abc import TaskStatus

from metalmark.model import StoreUnavailable
from metalmark.server.channel_wire import DISMISSED, GOING_AWAY, REPLACED
from metalmark.server.socket_protocol import STOPPING
from metalmark.store import Notice, NoticeKind, Store, runner_keys_in_force
from metalmark.system import Clock

PONG_WITHIN_S = 5.0
"""How long the first connection of a runner has to answer when a second one comes."""
_SETTLED_S = 1.0
_LOOK_AGAIN_S = 1.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class ProcessIdentity:
    """A process of a runner, as one of ours names it."""

    process: str
    boot: str


class Session(Protocol):
    """One runner's connection, as the others see it."""

    @property
    def runner_id(self) -> UUID:
        """Whose it is."""

    @property
    def identity(self) -> ProcessIdentity | None:
        """Which process is at the other end; None for a public runner, which does not say."""

    async def answers(self, within_s: float) -> bool:
        """Whether the runner at the other end gives a sign of life in time."""

    async def close(self, code: int, reason: str) -> None:
        """End it with a close frame."""

    def job_changed(self, job: UUID | None) -> None:
        """Look at a job again; None: at all of them. Does not wait."""


class Channels:
    """All channels of one server process. `run` has to be running."""

    def __init__(self, *, store: Store, clock: Clock, stopping: anyio.Event) -> None:
        self._store = store
        self._clock = clock
        self._stopping = stopping
        self._opened_s: dict[Session, float] = {}
        self._keys: dict[Session, str] = {}
        self._key_doubts: dict[Session, None] = {}
        self._keys_doubted = anyio.Event()
        self._of_runner: dict[UUID, list[Session]] = {}
        self._of_job: dict[UUID, list[Session]] = {}
        self._asked: set[Session] = set()
        self._replaced: set[Session] = set()
        self._doubted: list[Session] = []
        self._doubts = anyio.Event()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Tell channels of their jobs, and end those that are not alive or whose key is not, until canceled."""
        kinds = (NoticeKind.JOB_CHANGED, NoticeKind.RUNNER_CHANGED)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._close_all)
            tasks.start_soon(self._examine)
            tasks.start_soon(self._look_at_keys)
            with self._store.notices.subscribe(kinds) as notices:
                task_status.started()
                async for notice in notices:
                    self._heed(notice)
            tasks.cancel_scope.cancel()

    def _heed(self, notice: Notice) -> None:
        if notice.kind is NoticeKind.RUNNER_CHANGED and notice.subject is not None:
            # It may have connected to another process of this server, or be no longer welcome.
            sessions = self._of_runner.get(notice.subject, ())
            self._doubt(sessions)
            self._doubt_keys(sessions)
        elif notice.kind is NoticeKind.JOB_CHANGED and notice.subject is not None:
            for session in self._of_job.get(notice.subject, ()):
                session.job_changed(notice.subject)
        elif notice.kind is NoticeKind.MISSED:
            for session in list(self._opened_s):
                session.job_changed(None)
            self._doubt_keys(self._opened_s)

    @contextmanager
    def opened(self, session: Session, *, key_digest: str) -> Iterator[None]:
        """Keep a session in the lists while the context lasts. Older ones of the same runner are asked for life.

        Args:
            session: What is kept.
            key_digest: Of the key that opened it. Once that is not its runner's any more, the session is closed.
        """
        others = self._of_runner.setdefault(session.runner_id, [])
        self._opened_s[session] = self._clock.monotonic_s()
        self._keys[session] = key_digest
        self._doubt(others, newcomer=session)
        others.append(session)
        try:
            yield
        finally:
            del self._opened_s[session], self._keys[session]
            self._key_doubts.pop(session, None)
            others.remove(session)
            if not others:
                self._of_runner.pop(session.runner_id, None)

    @contextmanager
    def watching(self, session: Session, job: UUID) -> Iterator[None]:
        """Tell a session of every change of a job while the context lasts."""
        self.watch(session, job)
        try:
            yield
        finally:
            self.unwatch(session, job)

    def watch(self, session: Session, job: UUID) -> None:
        """Tell a session of every change of a job from now on."""
        watchers = self._of_job.setdefault(job, [])
        if session not in watchers:
            watchers.append(session)

    def unwatch(self, session: Session, job: UUID) -> None:
        """Tell a session no more of a job."""
        watchers = self._of_job.get(job, [])
        if session in watchers:
            watchers.remove(session)
        if not watchers:
            self._of_job.pop(job, None)

    def identified(self, session: Session) -> None:
        """A session learned which process is at its other end: earlier connections of the same one are over."""
        self._doubt(
            [other for other in self._of_runner.get(session.runner_id, ()) if other is not session], newcomer=session
        )

    def _doubt(self, sessions: list[Session] | tuple[Session, ...], newcomer: Session | None = None) -> None:
        now_s = self._clock.monotonic_s()
        for session in list(sessions):
            same = newcomer is not None and newcomer.identity is not None and newcomer.identity == session.identity
            settled = newcomer is not None or now_s - self._opened_s.get(session, now_s) > _SETTLED_S
            if same or (settled and session not in self._asked):
                self._asked.add(session)
                if same:
                    self._replaced.add(session)
                self._doubted.append(session)
                self._doubts.set()

    async def _examine(self) -> None:
        async with anyio.create_task_group() as tasks:
            while True:
                await self._doubts.wait()
                self._doubts = anyio.Event()
                doubted, self._doubted = self._doubted, []
                for session in doubted:
                    tasks.start_soon(self._ask, session)

    async def _ask(self, session: Session) -> None:
        try:
            replaced = session in self._replaced
            if replaced or not await session.answers(PONG_WITHIN_S):
                _log.info("channel replaced", runner=str(session.runner_id), silent=not replaced)
                await session.close(REPLACED, "replaced by another connection")
        except Exception as error:  # noqa: BLE001 - one channel's fault is not that of all
            _log.error("channel not examined", runner=str(session.runner_id), exc_info=error)
        finally:
            self._asked.discard(session)
            self._replaced.discard(session)

    def _doubt_keys(self, sessions: Iterable[Session]) -> None:
        self._key_doubts |= dict.fromkeys(sessions)
        self._keys_doubted.set()

    async def _look_at_keys(self) -> None:
        """Close sessions whose runner was archived or got another key since they were opened."""
        async with anyio.create_task_group() as tasks:
            while True:
                await self._keys_doubted.wait()
                self._keys_doubted = anyio.Event()
                doubted, self._key_doubts = list(self._key_doubts), {}
                keys = {session: key for session in doubted if (key := self._keys.get(session)) is not None}
                try:
                    async with self._store.read() as connection:
                        good = await runner_keys_in_force(connection, set(keys.values()))
                except Exception as error:  # noqa: BLE001 - keys that are good no more must be found sooner or later
                    away = isinstance(error, StoreUnavailable)
                    _log.warning("keys of channels not looked at", error=str(error), exc_info=None if away else error)
                    await self._clock.sleep_s(_LOOK_AGAIN_S)
                    self._doubt_keys(session for session in doubted if session in self._keys)
                    continue
                for session, key in keys.items():
                    if key not in good:
                        _log.info("channel dismissed", runner=str(session.runner_id))
                        tasks.start_soon(_closed, session, DISMISSED, "the key of this runner is no longer good")

    async def _close_all(self) -> None:
        await self._stopping.wait()
        async with anyio.create_task_group() as tasks:
            for session in list(self._opened_s):
                tasks.start_soon(_closed, session, GOING_AWAY, STOPPING)


async def _closed(session: Session, code: int, reason: str) -> None:
    try:
        await session.close(code, reason)
    except Exception as error:  # noqa: BLE001 - one channel's fault is not that of all
        _log.error("channel not closed", runner=str(session.runner_id), exc_info=error)
