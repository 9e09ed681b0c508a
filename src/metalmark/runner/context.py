"""What a run needs from its surroundings: images, sandboxes, folders, CPUs and a way to be stopped."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from metalmark.host import Topology
from metalmark.model import Digest, ImageConfig, JobSpec, Platform, ProgressSink, RootfsMode, SandboxName
from metalmark.runner.live_output import LiveOutput
from metalmark.runner.phase_clock import Deadlines
from metalmark.runner.stop_request import StopRequest
from metalmark.sandbox import Accelerator, Driver, Stream
from metalmark.system import Folders


class RunImage(Protocol):
    """An image that is in the cache (`metalmark.oci.ResolvedImage`)."""

    @property
    def digest(self) -> Digest: ...  # noqa: D102  # see ResolvedImage
    @property
    def platform(self) -> Platform: ...  # noqa: D102  # see ResolvedImage
    @property
    def config(self) -> ImageConfig: ...  # noqa: D102  # see ResolvedImage


class RunRootfs(Protocol):
    """A root file system that is held in the cache (`metalmark.oci.Rootfs`)."""

    @property
    def path(self) -> Path: ...  # noqa: D102  # see Rootfs


class Images(Protocol):
    """Where images come from."""

    async def pull(self, spec: JobSpec, progress: ProgressSink) -> RunImage:
        """Bring a job's image into the cache.

        Raises:
            InputError, ImageError, RegistryDenied, RegistryUnavailable, NoSpace, NoPermission
        """
        ...

    def open_rootfs(
        self, image: RunImage, *, mode: RootfsMode, disk_bytes: int, progress: ProgressSink
    ) -> AbstractAsyncContextManager[RunRootfs]:
        """Build an image's root file system or find it, and hold it.

        Raises:
            LayerRefused, UnsupportedImage, ToolMissing, NoSpace, NoPermission
        """
        ...


class ChosenSandbox(Protocol):
    """A driver that works here, and why it was chosen (`metalmark.sandbox.Choice`)."""

    @property
    def driver(self) -> Driver: ...  # noqa: D102  # see Choice
    @property
    def name(self) -> SandboxName: ...  # noqa: D102  # see Choice
    @property
    def accelerator(self) -> Accelerator | None: ...  # noqa: D102  # see Choice
    @property
    def reason(self) -> str: ...  # noqa: D102  # see Choice


class Sandboxes(Protocol):
    """Where boxes come from."""

    async def choose(self, requested: SandboxName | None) -> ChosenSandbox:
        """Return the sandbox that was asked for, or the best that works here.

        Raises:
            SandboxUnavailable, InputError
        """
        ...


@dataclass(frozen=True, kw_only=True)
class ExecutionContext:
    """The surroundings of one run."""

    images: Images
    sandboxes: Sandboxes
    folders: Folders
    """Every box gets its folders below these."""
    spool: Path
    """An existing private folder of the caller for output; what it holds belongs to the result."""
    topology: Topology
    cpus_in_use: frozenset[int] = frozenset()
    """CPUs of other runs on this machine, which this one does not get."""
    stop: StopRequest = field(default_factory=StopRequest)
    deadlines: Deadlines = field(default_factory=Deadlines)
    live: LiveOutput | None = None
    """Where output is forwarded to while the benchmark runs."""
    tap: Callable[[int, Stream, bytes], None] | None = None
    """Is handed what the benchmark prints, as it comes: iteration, stream, bytes. Must not block."""
    keep_output: bool = True
    """Whether the spool keeps an iteration's output after its end; otherwise only the counts stay."""
    debug_boot: bool = False
    seed: int = 0
    """Of the plan; stored with the result."""
