"""Boxes as virtual machines of Firecracker.

Its API and life are checked against the published description and a fake that behaves like it; on a machine with KVM
``metalmark host selftest --sandbox firecracker`` is the acceptance.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final

import anyio
from anyio.abc import ByteStream, TaskGroup

from metalmark.model import BoxLost, InputError, MetalmarkError, SandboxName, SandboxUnavailable
from metalmark.sandbox.agent_binary import agent_binary
from metalmark.sandbox.artifacts import PinnedFirecracker, PinnedKernel
from metalmark.sandbox.awaited_stream import AwaitedStream
from metalmark.sandbox.box_life import living
from metalmark.sandbox.firecracker_api import MOST_VCPUS
from metalmark.sandbox.firecracker_process import FirecrackerProcess
from metalmark.sandbox.kernel import GuestKernel, find_kernel, kernels_folder
from metalmark.sandbox.kvm import KvmProbe, probe_kvm
from metalmark.sandbox.microvm import Boot, MicrovmBox, boot_files, check_size
from metalmark.sandbox.port import Accelerator, Availability, Box, BoxFacts, BoxSpec, Driver
from metalmark.sandbox.settings import DriverSettings
from metalmark.system import find_tool, in_thread

DRIVERS: Final = ("virtio_mmio", "virtio_blk", "vmw_vsock_virtio_transport", "squashfs", "overlay", "ext4")
_BOOT_S: Final = 10.0
_HINT: Final = "metalmark host setup --with firecracker"


class FirecrackerBox(MicrovmBox):
    """A virtual machine of Firecracker."""

    boot_limit_s = _BOOT_S
    accelerator = Accelerator.KVM

    def __init__(self, spec: BoxSpec, tasks: TaskGroup, *, driver: FirecrackerDriver) -> None:
        super().__init__(spec, tasks)
        self._driver = driver
        self._process: FirecrackerProcess | None = None
        self._watching = anyio.CancelScope()

    async def _spawn(self) -> ByteStream:
        driver = self._driver
        self._process = FirecrackerProcess(
            self.spec,
            binary=await in_thread(driver.binary),
            machine=driver.settings.machine,
            boot=await in_thread(driver.boot),
        )
        stream = AwaitedStream(await self._process.start())
        self._tasks.start_soon(self._watch, stream)
        return stream

    async def _watch(self, stream: AwaitedStream) -> None:
        # A guest that dies before its agent connects closes nothing that anybody reads.
        with self._watching:
            if self._process is not None and self._process.child is not None:
                await self._process.child.wait()
                await stream.aclose()

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    async def _end(self) -> None:
        self._watching.cancel()
        if self._process is not None:
            await self._process.stop()

    async def _last_words(self) -> MetalmarkError | None:
        return None if self._process is None else await self._process.last_words()

    @property
    def facts(self) -> BoxFacts:
        """What this box is; complete once it has started, its warnings once it has stopped."""
        if self._hello is None or self._process is None:
            raise BoxLost("the box has not started")
        warnings = self._warnings
        if self._process.cgroup.warning:
            warnings = (self._process.cgroup.warning, *warnings)
        return BoxFacts(
            sandbox=SandboxName.FIRECRACKER,
            accelerator=self.accelerator,
            kernel=self._hello.kernel,
            details={"firecracker": self._process.version, "agent": self._hello.agent},
            warnings=warnings,
        )


class FirecrackerDriver(Driver):
    """Makes boxes that are virtual machines of Firecracker."""

    def __init__(self, settings: DriverSettings, *, kvm: KvmProbe | None = None) -> None:
        self.settings = settings
        self._kvm = kvm
        self._boot: Boot | None = None

    @property
    def name(self) -> SandboxName:
        """``firecracker``."""
        return SandboxName.FIRECRACKER

    async def probe(self) -> Availability:
        """Whether KVM runs guests here, and Firecracker, a guest kernel and the agent are there."""
        try:
            binary = await in_thread(self.binary)
            kernel = await in_thread(self.kernel)
            kernel.select(DRIVERS)
            if self.settings.agent is None:
                await in_thread(agent_binary, self.settings.machine)
        except MetalmarkError as error:
            return Availability(usable=False, reason=str(error), hint=error.hint)
        if self._kvm is None:
            self._kvm = await probe_kvm(self.settings.kvm_device)
        if not self._kvm.usable:
            return Availability(usable=False, reason=f"it needs KVM, and {self._kvm.reason}", hint=self._kvm.hint)
        return Availability(
            usable=True,
            accelerator=Accelerator.KVM,
            reason=f"{binary} with kernel {kernel.release}, under KVM",
        )

    def create(self, spec: BoxSpec) -> AbstractAsyncContextManager[Box]:
        """Make a box that has not started; leaving the context stops and removes it.

        Raises:
            BoxTooSmall, InputError
            SandboxUnavailable: A network is asked for.
        """
        check_size(spec)
        vcpus = spec.resources.vcpus
        if vcpus > MOST_VCPUS:
            raise InputError("--vcpus", vcpus, f"Firecracker makes at most {MOST_VCPUS}", hint="use --sandbox qemu")
        if spec.network:
            raise SandboxUnavailable(
                "sandbox firecracker has no network",
                why="Firecracker takes its network from a TAP device, which would need root and rules on the host",
                hint="use --sandbox qemu with --network",
            )
        return living(lambda tasks: FirecrackerBox(spec, tasks, driver=self))

    def binary(self) -> Path:
        """Return Firecracker's binary: the one asked for, else the pinned one, else the one on PATH. Blocking.

        Raises:
            ToolMissing: There is none.
        """
        if self.settings.firecracker is not None:
            return self.settings.firecracker
        return PinnedFirecracker(self.settings).installed() or Path(find_tool("firecracker", hint=_HINT))

    def kernel(self) -> GuestKernel:
        """Return the kernel to boot: the Firecracker project's own where it is installed, else the distribution's.

        Raises:
            ToolMissing: There is none. Blocking.
        """
        pinned = PinnedKernel(self.settings).installed()
        return pinned or find_kernel(kernels_folder(self.settings.folders), self.settings.machine)

    def boot(self) -> Boot:
        """Return kernel and initramfs. Blocking.

        Raises:
            ToolMissing, NoSpace
        """
        if self._boot is None:
            self._boot = boot_files(self.settings, self.kernel(), DRIVERS)
        return self._boot
