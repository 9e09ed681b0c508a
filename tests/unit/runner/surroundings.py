"""Fake surroundings of a run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from metalmark.host import LogicalCpu, Topology
from metalmark.model import (
    Digest,
    ImageConfig,
    JobSpec,
    MetalmarkError,
    Platform,
    Progress,
    ProgressSink,
    RootfsMode,
    SandboxName,
)
from metalmark.runner import ExecutionContext, RunObserver, StopRequest
from metalmark.sandbox import Accelerator
from metalmark.system import Folders
from metalmark.testing.fake_sandbox import FakeDriver


@dataclass(frozen=True, kw_only=True)
class FakeImage:
    config: ImageConfig
    digest: Digest = field(default_factory=lambda: Digest.of(b"manifest"))
    platform: Platform = field(default_factory=lambda: Platform("linux", "amd64"))


@dataclass(frozen=True, kw_only=True)
class FakeRootfs:
    path: Path


@dataclass(kw_only=True)
class FakeImages:
    config: ImageConfig = field(default_factory=lambda: ImageConfig(cmd=("/bin/true",)))
    pull_error: Exception | None = None
    rootfs_error: Exception | None = None
    pull_hangs: bool = False
    pulls: int = 0
    held: int = 0
    opened: int = 0
    root: Path = Path("/nonexistent/root.squashfs")

    async def pull(self, spec: JobSpec, progress: ProgressSink) -> FakeImage:
        self.pulls += 1
        progress(Progress(task="pull", done=1, total=1, finished=True))
        if self.pull_hangs:
            await anyio.sleep_forever()
        if self.pull_error:
            raise self.pull_error
        return FakeImage(config=self.config)

    @asynccontextmanager
    async def open_rootfs(
        self, image: FakeImage, *, mode: RootfsMode, disk_bytes: int, progress: ProgressSink
    ) -> AsyncIterator[FakeRootfs]:
        if self.rootfs_error:
            raise self.rootfs_error
        self.held += 1
        self.opened += 1
        try:
            yield FakeRootfs(path=self.root)
        finally:
            self.held -= 1


@dataclass(kw_only=True)
class FakeChoice:
    driver: FakeDriver
    name: SandboxName = SandboxName.CONTAINER
    accelerator: Accelerator | None = Accelerator.NATIVE
    reason: str = "the test asked for it"


@dataclass(kw_only=True)
class FakeSandboxes:
    driver: FakeDriver
    error: MetalmarkError | None = None

    async def choose(self, requested: SandboxName | None) -> FakeChoice:
        if self.error:
            raise self.error
        return FakeChoice(driver=self.driver, accelerator=self.driver.accelerator)


class RecordingObserver(RunObserver):
    def __init__(self) -> None:
        self.events: list[str] = []
        self.on_event: dict[str, object] = {}

    def _event(self, name: str) -> None:
        self.events.append(name)
        action = self.on_event.get(name)
        if callable(action):
            action()

    def chosen(self, sandbox: object) -> None:
        self._event("chosen")

    def warned(self, text: str) -> None:
        self._event(f"warned {text}")

    def phase_started(self, phase: object, iteration: int) -> None:
        self._event(f"{phase} {iteration}")

    def iteration_ended(self, result: object) -> None:
        self._event("ended")


def topology(count: int = 4) -> Topology:
    return Topology(cpus=tuple(LogicalCpu(number=n) for n in range(count)), allowed=tuple(range(count)))


def surroundings(
    folder: Path,
    driver: FakeDriver,
    *,
    images: FakeImages | None = None,
    stop: StopRequest | None = None,
    cpus: int = 4,
) -> ExecutionContext:
    spool = folder / "spool"
    spool.mkdir()
    return ExecutionContext(
        images=images or FakeImages(),
        sandboxes=FakeSandboxes(driver=driver),
        folders=Folders(state=folder / "state", cache=folder / "cache", run=folder / "run", config=folder / "config"),
        spool=spool,
        topology=topology(cpus),
        stop=stop or StopRequest(),
    )
