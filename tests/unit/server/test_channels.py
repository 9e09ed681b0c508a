from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import anyio
import pytest

from metalmark.model import StoreAway, new_id
from metalmark.server import channels as module
from metalmark.server.channel_wire import DISMISSED, GOING_AWAY, REPLACED
from metalmark.server.channels import Channels, ProcessIdentity
from metalmark.store import Notice, NoticeKind
from metalmark.store.notices import Notices
from metalmark.testing.fake_clock import FakeClock

pytestmark = pytest.mark.anyio
RUNNER = new_id()


class Session:
    """One connection, that a test may break."""

    def __init__(self, *, runner: UUID = RUNNER, alive: bool = True, fault: Exception | None = None) -> None:
        self.runner_id = runner
        self.identity: ProcessIdentity | None = None
        self.closed: list[int] = []
        self.looked: list[UUID | None] = []
        self._alive = alive
        self._fault = fault

    async def answers(self, within_s: float) -> bool:
        del within_s
        if self._fault is not None:
            raise self._fault
        return self._alive

    async def close(self, code: int, reason: str) -> None:
        del reason
        if self._fault is not None:
            raise self._fault
        self.closed.append(code)

    def job_changed(self, job: UUID | None) -> None:
        self.looked.append(job)


class Scene:
    """Channels that run, over a store whose keys a test names."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.stopping = anyio.Event()
        self.notices = Notices()
        self.good: set[str] = set()
        self.faults: list[Exception] = []
        store = SimpleNamespace(notices=self.notices, read=self.read)
        self.channels = Channels(store=cast("Any", store), clock=self.clock, stopping=self.stopping)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[None]:
        yield None

    async def keys_in_force(self, connection: object, digests: set[str]) -> set[str]:
        del connection
        if self.faults:
            raise self.faults.pop(0)
        return digests & self.good

    async def tell(self, kind: NoticeKind, subject: UUID | None) -> None:
        self.notices.deliver([Notice(kind=kind, subject=subject)])
        await anyio.wait_all_tasks_blocked()


@pytest.fixture
async def scene(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    made = Scene()
    monkeypatch.setattr(module, "runner_keys_in_force", made.keys_in_force)
    async with anyio.create_task_group() as tasks:
        await tasks.start(made.channels.run)
        yield made
        tasks.cancel_scope.cancel()


async def test_a_connection_that_cannot_be_asked_keeps_no_other_from_being_so(scene: Scene) -> None:
    broken, silent, fine = Session(fault=RuntimeError("a defect")), Session(alive=False), Session()
    with scene.channels.opened(broken, key_digest="a"), scene.channels.opened(silent, key_digest="a"):
        with scene.channels.opened(fine, key_digest="a"):
            await anyio.wait_all_tasks_blocked()
            assert (silent.closed, fine.closed) == ([REPLACED], [])
            # And whoever comes next is examined as well.
            with scene.channels.opened(Session(), key_digest="a"):
                await anyio.wait_all_tasks_blocked()
                assert silent.closed == [REPLACED, REPLACED]


@pytest.mark.parametrize("fault", [StoreAway("away", why="a test says so"), RuntimeError("a defect")])
async def test_keys_that_could_not_be_looked_at_are_looked_at_again(scene: Scene, fault: Exception) -> None:
    session, other = Session(), Session(runner=new_id())
    scene.good, scene.faults = {"other"}, [fault]
    with scene.channels.opened(session, key_digest="old"), scene.channels.opened(other, key_digest="other"):
        await scene.tell(NoticeKind.RUNNER_CHANGED, RUNNER)
        assert session.closed == []
        scene.clock.advance(1.0)
        await anyio.wait_all_tasks_blocked()
        assert (session.closed, other.closed) == ([DISMISSED], [])
        assert scene.faults == []


async def test_a_connection_that_cannot_be_dismissed_keeps_no_other_from_being_so(scene: Scene) -> None:
    broken, session = Session(fault=OSError("gone")), Session()
    with scene.channels.opened(broken, key_digest="old"), scene.channels.opened(session, key_digest="old"):
        await scene.tell(NoticeKind.MISSED, None)
        assert session.closed == [DISMISSED]
        assert broken.looked == [None]


async def test_at_the_end_every_connection_is_told_whatever_becomes_of_one(scene: Scene) -> None:
    sessions = [Session(runner=new_id(), fault=fault) for fault in (None, RuntimeError("a defect"), None)]
    with (
        scene.channels.opened(sessions[0], key_digest="a"),
        scene.channels.opened(sessions[1], key_digest="b"),
        scene.channels.opened(sessions[2], key_digest="c"),
    ):
        scene.stopping.set()
        await anyio.wait_all_tasks_blocked()
        assert [session.closed for session in sessions] == [[GOING_AWAY], [], [GOING_AWAY]]


async def test_a_job_is_told_of_to_whoever_watches_it(scene: Scene) -> None:
    session, job = Session(), new_id()
    with scene.channels.opened(session, key_digest="a"):
        with scene.channels.watching(session, job):
            await scene.tell(NoticeKind.JOB_CHANGED, job)
            await scene.tell(NoticeKind.JOB_CHANGED, new_id())
        await scene.tell(NoticeKind.JOB_CHANGED, job)
    assert session.looked == [job]
