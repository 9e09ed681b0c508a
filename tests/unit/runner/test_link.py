from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from tests.unit.runner.assignments import assignment

from metalmark.client import ConnectionSettings, ServerAddress
from metalmark.model import ChannelLost, ChannelRefused, InputError, MetalmarkError
from metalmark.runner import link as link_module
from metalmark.runner.link import Link
from metalmark.system import SystemClock
from metalmark.testing.scripted_hands import QUICK, NotedLink, NotedUpdates, identity, scripted_hands

pytestmark = pytest.mark.anyio


class Waits(SystemClock):
    """A clock that notes how long somebody wants to wait, and does not."""

    def __init__(self) -> None:
        self.waited: list[float] = []

    async def sleep_s(self, seconds: float) -> None:
        self.waited.append(seconds)
        await anyio.lowlevel.checkpoint()


class Silent:
    """A connection on which nothing comes before it breaks."""

    subprotocol = None
    heard = False

    async def send(self, text: str) -> None:
        await anyio.lowlevel.checkpoint()

    async def receive(self) -> str:
        await anyio.lowlevel.checkpoint()
        raise ChannelLost("broke")


class Server:
    """What each attempt to connect gives: an error, or a connection."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.outcomes: Iterator[Any] = iter(())
        self.subprotocols: list[tuple[str, ...]] = []
        monkeypatch.setattr(link_module, "open_channel", self._open)

    @asynccontextmanager
    async def _open(self, settings: Any, runner: str, *, subprotocols: Sequence[str], **_: Any) -> AsyncIterator[Any]:
        self.subprotocols.append(tuple(subprotocols))
        outcome = next(self.outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        yield outcome


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(monkeypatch)


async def run(server: Server, folder: Path, outcomes: list[Any], *, jitter: float = 1.0) -> tuple[Waits, NotedLink]:
    """Run a link through these outcomes; the last of them has to end it."""
    clock, observer = Waits(), NotedLink()
    server.outcomes = iter(outcomes)
    async with scripted_hands(folder) as hands:
        link = Link(
            settings=ConnectionSettings(address=ServerAddress.parse("http://x.example.com")),
            identity=identity(),
            jobs=hands.jobs,
            updates=NotedUpdates(),
            environment={},
            observer=observer,
            clock=clock,
            pace=QUICK,
            jitter=lambda: jitter,
        )
        with pytest.raises(MetalmarkError) as caught:
            await link.run()
        assert caught.value is outcomes[-1]
    return clock, observer


END = ChannelRefused("no")


async def test_pauses_grow_to_a_bound_and_no_further(server: Server, tmp_path: Path) -> None:
    clock, _ = await run(server, tmp_path, [ChannelLost("away")] * 8 + [END])
    assert clock.waited == [1, 2, 4, 8, 16, 30, 30, 30]


async def test_pauses_are_spread_from_nothing_to_all(server: Server, tmp_path: Path) -> None:
    clock, _ = await run(server, tmp_path, [ChannelLost("away")] * 3 + [END], jitter=0.25)
    assert clock.waited == [0.25, 0.5, 1]


async def test_what_the_server_asks_for_is_the_least_and_bounded(server: Server, tmp_path: Path) -> None:
    busy = [ChannelLost("busy", retry_after_s=40.0), ChannelLost("busy", retry_after_s=1e9), END]
    clock, _ = await run(server, tmp_path, busy, jitter=0.5)
    assert clock.waited == [40.5, 601]


async def test_connection_that_ends_before_it_works_counts_as_failed(server: Server, tmp_path: Path) -> None:
    lost = ChannelLost("broke")
    clock, observer = await run(server, tmp_path, [Silent(), Silent(), lost, END])
    assert clock.waited == [1, 2, 4]
    assert observer.events.count("public") == 2
    assert server.subprotocols == [("metalmark.1",)] * 4


async def test_server_that_hangs_up_at_once_is_told_of(server: Server, tmp_path: Path) -> None:
    errors: list[MetalmarkError] = []

    class Noting(NotedLink):
        def disconnected(self, error: Any, wait_s: float) -> None:
            errors.append(error)

    server.outcomes = iter([Silent(), END])
    async with scripted_hands(tmp_path) as hands:
        link = Link(
            settings=ConnectionSettings(address=ServerAddress.parse("http://x.example.com")),
            identity=identity(),
            jobs=hands.jobs,
            updates=NotedUpdates(),
            environment={},
            observer=Noting(),
            clock=Waits(),
            pace=QUICK,
        )
        with pytest.raises(ChannelRefused):
            await link.run()
    assert "key" in errors[0].hint


async def test_settings_that_cannot_work_end_it(server: Server, tmp_path: Path) -> None:
    await run(server, tmp_path, [InputError("--ca-file", "x", "it is none")])


async def test_channel_that_ends_for_a_bad_key_ends_with_the_refusal_of_the_next(
    server: Server, tmp_path: Path
) -> None:
    dismissed = ChannelLost("the server closed the channel: 4401", code=4401)
    clock, _ = await run(server, tmp_path, [dismissed, END])
    assert clock.waited == [1]


@pytest.mark.parametrize("error", [END, InputError("--ca-file", "x", "it is away just now")])
async def test_job_that_runs_is_not_lost_with_the_connection(
    server: Server, tmp_path: Path, error: MetalmarkError
) -> None:
    server.outcomes = iter([error] * 3)
    async with scripted_hands(tmp_path) as hands:
        hands.jobs.take(assignment())
        with anyio.CancelScope() as scope:

            class ThreeWaits(Waits):
                async def sleep_s(self, seconds: float) -> None:
                    await super().sleep_s(seconds)
                    if len(self.waited) == 3:
                        scope.cancel()
                        await anyio.lowlevel.checkpoint()

            clock = ThreeWaits()
            link = Link(
                settings=ConnectionSettings(address=ServerAddress.parse("http://x.example.com")),
                identity=identity(),
                jobs=hands.jobs,
                updates=NotedUpdates(),
                environment={},
                clock=clock,
                pace=QUICK,
                jitter=lambda: 1.0,
            )
            await link.run()
    assert clock.waited == [30, 30, 30]
