"""Boxes as virtual machines of QEMU."""

from __future__ import annotations

import os
import platform
from contextlib import AbstractAsyncContextManager
from typing import Final

import anyio
from anyio.abc import ByteStream, TaskGroup, UNIXSocketStream

from metalmark.model import BoxLost, MetalmarkError, SandboxName
from metalmark.sandbox.agent_binary import agent_binary
from metalmark.sandbox.box_life import living
from metalmark.sandbox.guest_clock import timer_fault
from metalmark.sandbox.kernel import find_kernel, kernels_folder
from metalmark.sandbox.kvm import KvmProbe, KvmState, probe_kvm
from metalmark.sandbox.microvm import Boot, MicrovmBox, boot_files, check_size, load_factor
from metalmark.sandbox.port import Accelerator, Availability, Box, BoxFacts, BoxSpec, Driver
from metalmark.sandbox.qemu_command import machine_name
from metalmark.sandbox.qemu_installation import QemuInstallation, find_qemu
from metalmark.sandbox.qemu_process import QemuProcess
from metalmark.sandbox.settings import DriverSettings
from metalmark.sandbox.tsc import tsc_khz
from metalmark.sandbox.vmm_user import VmmUser, vmm_user
from metalmark.system import in_thread
from metalmark.wire import Hello, Setup

DRIVERS: Final = ("virtio_mmio", "virtio_blk", "virtio_console", "squashfs", "overlay", "ext4")
_KVM_BOOT_S: Final = 10.0
_TCG_BOOT_S: Final = 45.0
_EVERY_VCPU_S: Final = 2.0


class QemuBox(MicrovmBox):
    """A virtual machine of QEMU."""

    def __init__(self, spec: BoxSpec, tasks: TaskGroup, *, driver: QemuDriver) -> None:
        super().__init__(spec, tasks)
        self._driver = driver
        self._process: QemuProcess | None = None
        self._installation: QemuInstallation | None = None
        self._user: VmmUser | None = None
        self.accelerator = Accelerator.TCG
        self._watching = anyio.CancelScope()

    async def _spawn(self) -> ByteStream:
        check_size(self.spec)
        driver = self._driver
        self._installation = await driver.installation()
        self.accelerator = await driver.accelerator()
        boot = await driver.boot(network=self.spec.network)
        if self.spec.network:
            await self._choose_network()
        kvm_device = driver.settings.kvm_device if self.accelerator is Accelerator.KVM else None
        self._user = vmm_user(self.spec.name, kvm_device=kvm_device)
        self._process = QemuProcess(
            self.spec,
            installation=self._installation,
            machine=driver.settings.machine,
            accelerator=self.accelerator,
            boot=boot,
            tsc_khz=await driver.tsc_khz(),
            user=self._user,
        )
        channel = await self._process.start()
        self._tasks.start_soon(self._watch)
        return await UNIXSocketStream.from_socket(channel)

    async def _watch(self) -> None:
        assert self._process is not None
        with self._watching:
            await self._process.monitor.watch(self._found)

    def _setup(self, hello: Hello) -> Setup:
        if self.accelerator is Accelerator.TCG and (fault := timer_fault(hello.timer_hz)) is not None:
            self._found(fault)
        return super()._setup(hello)

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
        if self._hello is None or self._installation is None:
            raise BoxLost("the box has not started")
        installation = self._installation
        warnings = self._warnings
        if self._process is not None and self._process.cgroup.warning:
            warnings = (self._process.cgroup.warning, *warnings)
        return BoxFacts(
            sandbox=SandboxName.QEMU,
            accelerator=self.accelerator,
            kernel=self._hello.kernel,
            details={
                "qemu": installation.version,
                "machine": machine_name(self._driver.settings.machine, network=self.spec.network),
                "seccomp": "on" if installation.seccomp else "off",
                "user": str(self._user.uid if self._user else os.geteuid()),
                "agent": self._hello.agent,
            },
            warnings=warnings,
        )


class QemuDriver(Driver):
    """Makes boxes that are virtual machines of QEMU; what it found out about the host it asks once."""

    def __init__(self, settings: DriverSettings, *, kvm: KvmProbe | None = None) -> None:
        self.settings = settings
        self._kvm = kvm
        self._installation: QemuInstallation | None = None
        self._tsc_khz = 0
        self._boots: dict[bool, Boot] = {}

    @property
    def name(self) -> SandboxName:
        """``qemu``."""
        return SandboxName.QEMU

    async def probe(self) -> Availability:
        """Whether QEMU, a guest kernel and the agent are there, and what would run the guest."""
        try:
            installation = await self.installation()
            kernel = await in_thread(find_kernel, kernels_folder(self.settings.folders), self.settings.machine)
            if self.settings.agent is None:
                await in_thread(agent_binary, self.settings.machine)
        except MetalmarkError as error:
            return Availability(usable=False, reason=str(error), hint=error.hint)
        kvm = await self.kvm()
        accelerator = await self.accelerator()
        how = "under KVM" if accelerator is Accelerator.KVM else f"emulating (KVM: {kvm.reason})"
        return Availability(
            usable=True,
            accelerator=accelerator,
            reason=f"QEMU {installation.version} with kernel {kernel.release}, {how}",
            hint=kvm.hint,
        )

    def create(self, spec: BoxSpec) -> AbstractAsyncContextManager[Box]:
        """Make a box that has not started; leaving the context stops and removes it.

        Raises:
            BoxTooSmall, InputError
        """
        check_size(spec)
        return living(lambda tasks: self._box(spec, tasks))

    def _box(self, spec: BoxSpec, tasks: TaskGroup) -> QemuBox:
        box = QemuBox(spec, tasks, driver=self)
        emulated = self._kvm is None or not self._kvm.usable
        base_s = _TCG_BOOT_S if emulated else _KVM_BOOT_S
        factor = load_factor(os.getloadavg()[0], os.cpu_count() or 1)
        box.boot_limit_s = (base_s + _EVERY_VCPU_S * (spec.resources.vcpus - 1)) * factor
        return box

    async def installation(self) -> QemuInstallation:
        """Return the QEMU that is installed.

        Raises:
            ToolMissing, PhaseTimeout
        """
        if self._installation is None:
            self._installation = await find_qemu(self.settings.machine, cache=self.settings.folders.cache)
        return self._installation

    async def kvm(self) -> KvmProbe:
        """Return whether KVM runs guests of this driver's machine."""
        if self._kvm is None:
            if self.settings.machine != platform.machine():
                self._kvm = KvmProbe(
                    state=KvmState.ABSENT, reason=f"{self.settings.machine} is not this machine's architecture"
                )
            else:
                self._kvm = await probe_kvm(self.settings.kvm_device)
        return self._kvm

    async def accelerator(self) -> Accelerator:
        """Return what executes the guests' instructions."""
        return Accelerator.KVM if (await self.kvm()).usable else Accelerator.TCG

    async def boot(self, *, network: bool) -> Boot:
        """Return kernel and initramfs.

        Raises:
            ToolMissing, NoSpace
        """
        if network not in self._boots:
            kernel = await in_thread(find_kernel, kernels_folder(self.settings.folders), self.settings.machine)
            drivers = (*DRIVERS, "virtio_net", "virtio_pci") if network else DRIVERS
            self._boots[network] = await in_thread(boot_files, self.settings, kernel, drivers)
        return self._boots[network]

    async def tsc_khz(self) -> int:
        """Return the rate of the time stamp counter that emulated guests see; 0 where there is none.

        Raises:
            SandboxUnavailable
        """
        if self.settings.machine == "x86_64" and platform.machine() == "x86_64" and not self._tsc_khz:
            self._tsc_khz = await tsc_khz(self.settings.folders.run)
        return self._tsc_khz
