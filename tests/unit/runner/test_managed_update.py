"""What becomes of an offer: when it is carried out, what a failure costs, and how a version proves itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

import anyio
import pytest
from structlog.testing import capture_logs

from metalmark.client import ConnectionSettings, ServerAddress, Trust
from metalmark.model import RequestRefused, ServerUnavailable, StableError
from metalmark.runner import (
    Installation,
    InstalledVersion,
    ManagedUpdates,
    Restart,
    UpdateOffer,
    find_updates,
    managed_update,
)
from metalmark.runner.installation import Trial
from metalmark.testing.fake_clock import FakeClock

pytestmark = pytest.mark.anyio

ONE = InstalledVersion(name="1-aaaa", version="1", checksum="a" * 64)
TWO = InstalledVersion(name="2-bbbb", version="2", checksum="b" * 64)
URL = "http://server/v0/updates/x"


async def step(clock: FakeClock, seconds: float) -> None:
    clock.advance(seconds)
    await settle()


class Jobs:
    """Hands whose jobs end when the test says."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.over = anyio.Event()

    def stop_claiming(self) -> None:
        self.log.append("stop")

    def resume_claiming(self) -> None:
        self.log.append("resume")

    async def empty(self) -> None:
        await self.over.wait()
        self.log.append("empty")


class Scene:
    """An install with one version, and what a test does to it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.installation = Installation(folder)
        self.installation.prepare()
        self.clock = FakeClock()
        self.jobs = Jobs()
        self.fetched: list[UpdateOffer] = []
        self.fetch_error: Exception | None = None
        self.install_error: Exception | None = None
        self.arguments: tuple[str, ...] = ()
        for version in (ONE, TWO):
            self.make(version)
        self.installation.switch(ONE.name)
        monkeypatch.setattr(managed_update, "install_artifact", self._install)

    def make(self, version: InstalledVersion) -> None:
        self.installation.folder(version.name).mkdir(exist_ok=True)
        self.installation.finish(version)

    async def fetch(self, offer: UpdateOffer, target: Path) -> None:
        self.fetched.append(offer)
        if self.fetch_error is not None:
            raise self.fetch_error
        target.write_bytes(b"artifact")

    async def _install(
        self, installation: Installation, artifact: Path, *, checksum: str, arguments: Sequence[str]
    ) -> InstalledVersion:
        assert artifact.read_bytes() == b"artifact"
        self.arguments = tuple(arguments)
        if self.install_error is not None:
            raise self.install_error
        version = InstalledVersion(name=f"v-{checksum[:4]}", version="9", checksum=checksum)
        self.make(version)
        return version

    def updates(self, *, current: InstalledVersion = ONE, accepts: bool = True) -> ManagedUpdates:
        return ManagedUpdates(
            self.installation,
            current,
            trial=self.installation.trial(),
            fetch=self.fetch,
            arguments=("runner", "up"),
            clock=self.clock,
            accepts=accepts,
        )


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(tmp_path / "opt", monkeypatch)


async def settle() -> None:
    # Threads are waited for as well, so turns of the loop alone are not enough.
    for _ in range(30):
        await anyio.sleep(0.001)


class Running:
    """A run under way, and what it returned."""

    def __init__(self) -> None:
        self.restart: Restart | None = None

    async def run(self, updates: ManagedUpdates, jobs: Jobs) -> None:
        self.restart = await updates.run(jobs)


async def test_an_offer_waits_for_the_jobs_and_then_replaces_the_process(scene: Scene) -> None:
    updates, running = scene.updates(), Running()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(running.run, updates, scene.jobs)
        updates.offered("9", URL, "c" * 64)
        await settle()
        assert scene.jobs.log == ["stop"]
        assert scene.fetched == []
        scene.jobs.over.set()
    assert running.restart is not None
    assert running.restart.program == scene.installation.launcher
    assert scene.installation.trial() == Trial(before=ONE.name, name="v-cccc")
    assert scene.arguments == ("runner", "up")
    # The version to go back to stays, all others are gone.
    assert {found.name for found in scene.installation.versions()} == {ONE.name, "v-cccc"}
    assert not list(scene.installation.root.glob("metalmark-work-*"))


async def test_the_version_that_runs_is_no_offer(scene: Scene) -> None:
    updates = scene.updates()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(updates.run, scene.jobs)
        updates.offered("1", URL, ONE.checksum or "")
        await settle()
        tasks.cancel_scope.cancel()
    assert scene.jobs.log == []


async def test_the_last_offer_counts_when_the_jobs_are_over(scene: Scene) -> None:
    updates, running = scene.updates(), Running()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(running.run, updates, scene.jobs)
        updates.offered("9", URL, "c" * 64)
        await settle()
        updates.offered("10", URL, "d" * 64)
        scene.jobs.over.set()
    assert [offer.version for offer in scene.fetched] == ["10"]


@pytest.mark.parametrize("where", ["fetch_error", "install_error"])
async def test_a_failure_lets_jobs_come_again_and_is_repeated_later_and_later(scene: Scene, where: str) -> None:
    error = ServerUnavailable("gone") if where == "fetch_error" else StableError("it does not start")
    setattr(scene, where, error)
    scene.jobs.over.set()
    updates = scene.updates()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(updates.run, scene.jobs)
        updates.offered("9", URL, "c" * 64)
        await settle()
        assert scene.jobs.log == ["stop", "empty", "resume"]
        assert scene.installation.current() == ONE
        updates.offered("9", URL, "c" * 64)
        await step(scene.clock, 3500)
        assert len(scene.fetched) == 1
        await step(scene.clock, 200)
        assert len(scene.fetched) == 2
        await step(scene.clock, 3700)
        assert len(scene.fetched) == 2
        await step(scene.clock, 3700)
        assert len(scene.fetched) == 3
        tasks.cancel_scope.cancel()
    assert not scene.installation.trial()


@pytest.mark.parametrize("meanwhile", ["being installed", "installed"])
async def test_what_an_administrator_installs_meanwhile_is_left_alone(scene: Scene, meanwhile: str) -> None:
    scene.jobs.over.set()
    updates = scene.updates()
    if meanwhile == "installed":
        scene.installation.switch(TWO.name)
    with scene.installation.alone() if meanwhile == "being installed" else nullcontext():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(updates.run, scene.jobs)
            updates.offered("9", URL, "c" * 64)
            await settle()
            tasks.cancel_scope.cancel()
    assert scene.jobs.log == ["stop", "empty", "resume"]
    assert scene.fetched == []
    assert scene.installation.versions() == [ONE, TWO]


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (410, 1), (403, 2)])
async def test_a_withdrawn_offer_stops_no_claims_again(scene: Scene, status: int, tries: int) -> None:
    scene.fetch_error = RequestRefused("no", why="it was withdrawn", status=status)
    scene.jobs.over.set()
    updates, running = scene.updates(), Running()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(running.run, updates, scene.jobs)
        updates.offered("9", URL, "c" * 64)
        await settle()
        for _ in range(2):
            await step(scene.clock, 3700)
        assert scene.jobs.log == ["stop", "empty", "resume"] * tries
        # Published once more, it is offered once more.
        scene.fetch_error = None
        updates.offered("9", URL, "c" * 64)
        for _ in range(3):
            await step(scene.clock, 3700)
    assert running.restart is not None


async def test_another_artifact_is_tried_at_once(scene: Scene) -> None:
    scene.install_error = StableError("it does not start")
    scene.jobs.over.set()
    updates = scene.updates()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(updates.run, scene.jobs)
        updates.offered("9", URL, "c" * 64)
        await settle()
        updates.offered("10", URL, "d" * 64)
        await settle()
        tasks.cancel_scope.cancel()
    assert [offer.version for offer in scene.fetched] == ["9", "10"]


async def test_a_failure_is_remembered_by_the_next_process(scene: Scene) -> None:
    scene.fetch_error = StableError("another checksum")
    scene.jobs.over.set()
    for _ in range(2):
        updates = scene.updates()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(updates.run, scene.jobs)
            updates.offered("9", URL, "c" * 64)
            await settle()
            tasks.cancel_scope.cancel()
    assert len(scene.fetched) == 1


async def test_a_clock_that_was_set_back_postpones_nothing(scene: Scene) -> None:
    later = (scene.clock.now() + timedelta(days=900)).timestamp()
    (scene.installation.root / "failures.json").write_text(json.dumps({"c" * 64: [1, later]}))
    updates, running = scene.updates(), Running()
    scene.jobs.over.set()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(running.run, updates, scene.jobs)
        updates.offered("9", URL, "c" * 64)
    assert running.restart is not None


@pytest.mark.parametrize("text", ["", "[]", "{", '{"x": 1}', '{"x": [1]}', '{"x": ["a", "b"]}'])
async def test_a_damaged_record_of_failures_is_empty(scene: Scene, text: str) -> None:
    (scene.installation.root / "failures.json").write_text(text)
    updates, running = scene.updates(), Running()
    scene.jobs.over.set()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(running.run, updates, scene.jobs)
        updates.offered("9", URL, "c" * 64)
    assert running.restart is not None


async def test_a_new_version_has_a_minute_and_is_then_taken_back(scene: Scene) -> None:
    scene.installation.begin_trial(Trial(before=ONE.name, name=TWO.name))
    updates, running = scene.updates(current=TWO), Running()
    assert updates.on_trial
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(running.run, updates, scene.jobs)
        await settle()
        await step(scene.clock, 59)
        assert running.restart is None
        await step(scene.clock, 2)
    assert running.restart is not None
    assert scene.installation.current() == ONE
    assert scene.installation.take_failure() == TWO
    # Results that wait for the server are no reason to wait with it.
    assert scene.jobs.log == ["stop"]


async def test_a_version_that_a_server_took_is_kept(scene: Scene) -> None:
    scene.installation.begin_trial(Trial(before=ONE.name, name=TWO.name))
    updates = scene.updates(current=TWO)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(updates.run, scene.jobs)
        await settle()
        updates.acknowledged()
        await settle()
        assert not updates.on_trial
        await step(scene.clock, 120)
        tasks.cancel_scope.cancel()
    assert scene.installation.current() == TWO
    assert scene.installation.trial() is None


async def test_what_was_taken_back_is_not_tried_again_at_once(scene: Scene) -> None:
    trial = Trial(before=ONE.name, name=TWO.name)
    scene.installation.begin_trial(trial)
    scene.installation.take_back(trial)
    updates = scene.updates()
    updates.note_taken_back()
    scene.jobs.over.set()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(updates.run, scene.jobs)
        updates.offered("2", URL, TWO.checksum or "")
        await settle()
        tasks.cancel_scope.cancel()
    assert scene.fetched == []


async def test_without_auto_update_a_trial_is_ended_and_no_offer_taken(scene: Scene) -> None:
    scene.installation.begin_trial(Trial(before=ONE.name, name=TWO.name))
    updates = scene.updates(current=TWO, accepts=False)
    assert updates.checksum is None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(updates.run, scene.jobs)
        updates.acknowledged()
        updates.offered("9", URL, "c" * 64)
        await settle()
        tasks.cancel_scope.cancel()
    assert scene.installation.trial() is None
    assert scene.jobs.log == []


@pytest.mark.parametrize(
    ("address", "insecure", "refused"),
    [
        ("http://bench.example.com", False, True),
        ("https://bench.example.com", True, True),
        ("https://bench.example.com", False, False),
        ("http://127.0.0.1:6610", False, False),
    ],
)
async def test_a_server_that_anybody_could_speak_for_updates_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, address: str, insecure: bool, refused: bool
) -> None:
    async def download(*_: object, **__: object) -> None:
        fetched.append(address)
        raise StableError("not in this test")

    fetched: list[str] = []
    (scene.installation.folder(ONE.name) / "bin").mkdir()
    monkeypatch.setattr(sys, "prefix", str(scene.installation.folder(ONE.name)))
    monkeypatch.setattr(managed_update, "download_update", download)
    scene.jobs.over.set()
    settings = ConnectionSettings(address=ServerAddress.parse(address), trust=Trust(insecure=insecure))
    with capture_logs() as said:
        updates = find_updates(settings, wanted=True, max_download_bytes=1, environment={}, arguments=())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(updates.run, scene.jobs)
            updates.offered("9", "http://bench.example.com/v0/updates/x", "c" * 64)
            await settle()
            tasks.cancel_scope.cancel()
    assert fetched == ([] if refused else [address])
    # A server that is not to be trusted is not even told what there is.
    assert updates.checksum == (None if refused else ONE.checksum)
    assert [line["event"] for line in said].count("this runner does not update itself") == refused


def test_a_copy_says_a_checksum_that_no_artifact_has(scene: Scene) -> None:
    copy = InstalledVersion(name="1-copy", version="1", checksum=None)
    assert scene.updates(current=copy).checksum == "0" * 64
