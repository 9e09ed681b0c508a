"""The interface that every sandbox has. Optional abilities are separate protocols, which a driver has or has not.

Life of a box::

    async with driver.create(spec) as box:     # create … remove, whatever happens in between
        await box.start()                      # boots; phases spawn, kernel, agent are timed
        execution = await box.exec(request, output)
        end = await execution.wait()
        await box.copy_out(…)
        await box.stop()                       # polite, then forced; also done on leaving the context
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from metalmark.model import PhaseSpan, Resources, RootfsMode, SandboxName
from metalmark.wire import Clock, Done, Exec, Exited, Get


class Accelerator(StrEnum):
    """What executes a guest's instructions."""

    KVM = "kvm"
    TCG = "tcg"
    """Emulation: never a measurement of this machine."""
    NATIVE = "native"
    """No virtual machine at all."""


class Stream(StrEnum):
    """The two output streams of a command."""

    STDOUT = "stdout"
    STDERR = "stderr"


OutputSink = Callable[[Stream, bytes], None]
"""Takes output as it comes. Called on the event loop; must not block for longer than a file write."""

DataSink = Callable[[bytes], None]
"""Takes the next piece of a tar stream. Same rule."""


@dataclass(frozen=True, kw_only=True)
class BoxSpec:
    """What to make a box from."""

    name: str
    """Unique on this machine; ``[a-z0-9-]``, at most 32 characters. Also in the names of cgroups and folders."""
    root: Path
    """squashfs image (overlay), or a private ext4 image that the box may write to (ext4)."""
    rootfs: RootfsMode
    workspace: Path
    """An existing private folder for sockets, scratch and logs; the caller removes it."""
    resources: Resources
    disk_folder: Path | None = None
    """An existing private folder for scratch disks, where there is room (`BoxRecord.disk`); None: the workspace."""
    cpus: tuple[int, ...] = ()
    """vCPU *n*, or the process, is bound to these; empty: unbound."""
    helper_cpus: tuple[int, ...] = ()
    """CPUs for the VMM's and the host's own threads; empty: unbound."""
    network: bool = False
    hostname: str = "metalmark"
    debug_boot: bool = False
    """Attach a serial console and keep its log in the workspace as ``console.log``."""
    boot_timeout_s: float = 0.0
    """0: the driver's own limit."""

    @property
    def scratch_folder(self) -> Path:
        """Where scratch disks are made."""
        return self.disk_folder or self.workspace


@dataclass(frozen=True, kw_only=True)
class BoxFacts:
    """What a started box is, for the result."""

    sandbox: SandboxName
    accelerator: Accelerator
    kernel: str
    """Release of the kernel that the commands see."""
    details: dict[str, str] = field(default_factory=dict)
    """Versions and choices of the driver: ``qemu``, ``machine``, ``runtime``, ``cgroup`` …"""
    warnings: tuple[str, ...] = ()
    """What was found wrong with the box and does not stop it, such as a clock that runs at the wrong rate."""


class Execution(Protocol):
    """A command that runs in a box."""

    async def started(self) -> None:
        """Wait until the program runs, or the command has ended without.

        Returns also when the box went away; `wait` says so.
        """

    async def wait(self) -> Exited:
        """Wait for its end.

        Raises:
            BoxLost: The box went away first.
            ProtocolError: The agent broke the protocol.
        """
        ...

    async def signal(self, number: int) -> None:
        """Send a signal to every process of the command; nothing happens when it has ended."""

    async def write(self, data: bytes) -> None:
        """Feed stdin (the request must have asked for it); waits while the command does not read."""

    async def close_stdin(self) -> None:
        """End stdin."""


class Box(Protocol):
    """One sandbox, from its creation to its removal."""

    @property
    def facts(self) -> BoxFacts:
        """What this box is; complete once it has started."""
        ...

    @property
    def phases(self) -> tuple[PhaseSpan, ...]:
        """Spawn, kernel and agent, as far as they have ended."""
        ...

    async def start(self) -> None:
        """Boot up to where commands can run.

        Raises:
            PhaseTimeout, BoxLost, BoxTooSmall, ToolMissing, NoSpace, NoPermission
        """

    async def exec(self, request: Exec, output: OutputSink) -> Execution:
        """Start a command and return at once; several may run at the same time."""
        ...

    async def copy_out(self, request: Get, data: DataSink) -> Done:
        """Fetch files as a tar stream. What the stream holds is untrusted."""
        ...

    async def copy_in(self, folder: str, tar: Path) -> Done:
        """Unpack a tar file under a folder of the box.

        Raises:
            BoxLost, ProtocolError, StableError: The agent could not write.
        """
        ...

    async def clock(self) -> Clock:
        """Read the guest's clocks."""
        ...

    async def stop(self) -> None:
        """End the box: politely, then by force. Returns when nothing of it runs any more; safe to repeat."""


@dataclass(frozen=True, kw_only=True)
class Availability:
    """Whether a driver works on this machine, as far as a probe could prove it."""

    usable: bool
    accelerator: Accelerator | None = None
    reason: str
    """What was found, also when usable."""
    hint: str = ""
    """What to do to make it usable; a command where there is one."""


class Driver(Protocol):
    """Makes boxes of one kind."""

    @property
    def name(self) -> SandboxName:
        """Which kind."""
        ...

    async def probe(self) -> Availability:
        """Find out whether boxes can be made here. Cheap: bounded by ten seconds, cached by the caller."""
        ...

    def create(self, spec: BoxSpec) -> AbstractAsyncContextManager[Box]:
        """Make a box that has not started; leaving the context stops and removes it.

        Raises:
            SandboxUnavailable, InputError
        """
        ...
