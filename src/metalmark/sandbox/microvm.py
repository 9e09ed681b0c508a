"""What the boxes that boot a kernel of their own have in common, whichever VMM runs them."""

from __future__ import annotations

import secrets
from abc import abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
from anyio.abc import TaskGroup

from metalmark.model import MIB, BoxLost, BoxTooSmall, InputError, MetalmarkError, RootfsMode, format_bytes
from metalmark.sandbox.agent_binary import agent_binary
from metalmark.sandbox.agent_box import AgentBox
from metalmark.sandbox.guest_clock import ClockReading, clock_rate, clock_warning
from metalmark.sandbox.initramfs import make_initramfs
from metalmark.sandbox.kernel import GuestKernel
from metalmark.sandbox.passt import GuestNetwork, guest_network
from metalmark.sandbox.port import Accelerator, BoxSpec
from metalmark.sandbox.qemu_command import disk_names
from metalmark.sandbox.settings import DriverSettings
from metalmark.system import in_thread, monotonic_ns, realtime_ns
from metalmark.wire import Hello, Setup

LEAST_MEMORY_BYTES: Final = 80 * MIB
"""Debian 12's kernel boots with this much and leaves 8 MiB to commands; with 72 MiB it panics."""
SMALL_MEMORY_BYTES: Final = 128 * MIB
"""A boot that fails with less than this is put down to the memory: other kernels need more than Debian's."""
MOST_VCPUS: Final = 255
_SEED_BYTES: Final = 64
_CLOCK_LIMIT_S: Final = 0.5
_CALM_LOAD: Final = 1.0


@dataclass(frozen=True, kw_only=True)
class Boot:
    """What a box boots: kernel and initramfs."""

    kernel: GuestKernel
    initramfs: Path


def boot_files(settings: DriverSettings, kernel: GuestKernel, drivers: tuple[str, ...]) -> Boot:
    """Return kernel and initramfs with some drivers; makes the initramfs when the cache has none. Blocking.

    Raises:
        ToolMissing: The agent or a driver is missing.
        NoSpace
    """
    agent = settings.agent or agent_binary(settings.machine)
    initramfs = make_initramfs(settings.folders.cache / "initramfs", agent, kernel.select(drivers))
    return Boot(kernel=kernel, initramfs=initramfs)


def check_size(spec: BoxSpec) -> None:
    """Refuse a box that no machine boots.

    Raises:
        BoxTooSmall: The memory is under what a kernel needs.
        InputError: More vCPUs than a VMM makes.
    """
    if spec.resources.memory_bytes < LEAST_MEMORY_BYTES:
        raise too_small(spec.resources.memory_bytes, LEAST_MEMORY_BYTES)
    if not 1 <= spec.resources.vcpus <= MOST_VCPUS:
        raise InputError("--vcpus", spec.resources.vcpus, f"a virtual machine has 1 to {MOST_VCPUS}")


def too_small(memory_bytes: int, least_bytes: int) -> BoxTooSmall:
    """Return the error for a memory in which no kernel boots."""
    return BoxTooSmall(
        f"a memory of {format_bytes(memory_bytes)}",
        why=f"a virtual machine needs {format_bytes(least_bytes)} to boot",
        hint=f"give --memory {least_bytes // MIB} or more",
    )


def load_factor(load: float, cpus: int) -> float:
    """Return by how much a deadline is stretched on a busy host: not at all when each CPU has one runnable task."""
    return max(_CALM_LOAD, load / max(1, cpus))


class MicrovmBox(AgentBox):
    """A virtual machine with the agent as its first process."""

    accelerator: Accelerator

    def __init__(self, spec: BoxSpec, tasks: TaskGroup) -> None:
        super().__init__(spec, tasks)
        self._network: GuestNetwork | None = None
        self._fault: MetalmarkError | None = None
        self._first_reading: ClockReading | None = None
        self._warnings: tuple[str, ...] = ()

    @abstractmethod
    def _kill(self) -> None:
        """Kill the VMM at once; its channel then ends."""

    def _found(self, fault: MetalmarkError) -> None:
        """Take note of what makes the box useless, and end it: whoever waits learns the first such finding."""
        if self._fault is None:
            self._fault = fault
            self._kill()

    async def _cause(self) -> MetalmarkError | None:
        if self._fault is not None:
            return self._fault
        cause = await self._last_words()
        memory_bytes = self.spec.resources.memory_bytes
        if self._hello is None and isinstance(cause, BoxLost) and memory_bytes < SMALL_MEMORY_BYTES:
            return too_small(memory_bytes, SMALL_MEMORY_BYTES)
        return cause

    @abstractmethod
    async def _last_words(self) -> MetalmarkError | None:
        """Wait for the VMM's end, and explain it; None when it says nothing."""

    def _setup(self, hello: Hello) -> Setup:
        del hello
        spec = self.spec
        root, scratch = disk_names(2)
        overlay = spec.rootfs is RootfsMode.OVERLAY
        network = self._network or GuestNetwork(address="", gateway="")
        return Setup(
            root=root,
            root_type="squashfs" if overlay else "ext4",
            scratch=scratch if overlay else "",
            hostname=spec.hostname,
            realtime_ns=realtime_ns(),
            seed=secrets.token_bytes(_SEED_BYTES),
            pids=spec.resources.pids,
            address=network.address,
            gateway=network.gateway,
            nameserver=network.nameserver,
        )

    async def _choose_network(self) -> None:
        self._network = await in_thread(guest_network)

    async def _prepared(self) -> None:
        self._first_reading = await self._read_clock()

    async def stop(self) -> None:
        """End the box: politely, then by force; before, its clock is compared with the host's."""
        with anyio.move_on_after(_CLOCK_LIMIT_S), suppress(MetalmarkError):
            if not self._stopped and self._first_reading is not None:
                warning = clock_warning(clock_rate(self._first_reading, await self._read_clock()))
                self._warnings += (warning,) if warning else ()
                self._first_reading = None
        await super().stop()

    async def _read_clock(self) -> ClockReading:
        assert self._connection is not None
        before_ns = monotonic_ns()
        clock = await self._connection.clock()
        return ClockReading(before_ns=before_ns, guest_ns=clock.monotonic_ns, after_ns=monotonic_ns())
