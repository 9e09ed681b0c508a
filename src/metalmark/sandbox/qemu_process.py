"""QEMU itself, from its disks to its end."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from metalmark.model import BoxLost, MetalmarkError, NoPermission, RootfsMode, StableError
from metalmark.sandbox.cmdline import kernel_command_line
from metalmark.sandbox.leftovers import note_process
from metalmark.sandbox.microvm import Boot
from metalmark.sandbox.passt import passt_failure, start_passt
from metalmark.sandbox.port import Accelerator, BoxSpec
from metalmark.sandbox.qemu_command import Disk, QemuMachine, console_name, qemu_command
from metalmark.sandbox.qemu_installation import QemuInstallation
from metalmark.sandbox.qmp import Monitor
from metalmark.sandbox.scratch import make_scratch
from metalmark.sandbox.vcpu_binding import bind_vmm
from metalmark.sandbox.vmm_cgroup import VmmCgroup
from metalmark.sandbox.vmm_files import VmmFiles
from metalmark.sandbox.vmm_user import VmmUser, as_user
from metalmark.system import Child, in_thread, spawn

_LAST_LINES: Final = 4


class QemuProcess:
    """One QEMU. `stop` undoes whatever `start` got to."""

    def __init__(
        self,
        spec: BoxSpec,
        *,
        installation: QemuInstallation,
        machine: str,
        accelerator: Accelerator,
        boot: Boot,
        tsc_khz: int,
        user: VmmUser | None,
    ) -> None:
        self._spec = spec
        self._installation = installation
        self._machine = machine
        self._accelerator = accelerator
        self._boot = boot
        self._tsc_khz = tsc_khz
        self._user = user
        self._passt: Child | None = None
        self.child: Child | None = None
        self.monitor = Monitor()
        self.cgroup = VmmCgroup(spec, emulated=accelerator is Accelerator.TCG)

    async def start(self) -> socket.socket:
        """Start QEMU, bind its threads, let the guest run; return the host's end of the agent's channel.

        Raises:
            NoSpace, ToolMissing, BoxTooSmall, PhaseTimeout, BoxLost, StableError
        """
        images = await self._images()
        await self.cgroup.create()
        with ExitStack() as guests:
            files = guests.enter_context(VmmFiles())
            monitor, monitor_guest = _pair(guests)
            channel, channel_guest = _pair(guests)
            try:
                network = guests.enter_context(self._start_network()) if self._spec.network else None
                command = self._command(
                    files,
                    images,
                    monitor_fd=monitor_guest.fileno(),
                    channel_fd=channel_guest.fileno(),
                    network_fd=network.fileno() if network else None,
                )
                sockets = (monitor_guest, channel_guest, *((network,) if network else ()))
                self._spawn(command, (*files.descriptors, *(end.fileno() for end in sockets)))
            except BaseException:
                monitor.close()
                channel.close()
                raise
        try:
            await self._let_run(monitor)
        except BaseException:
            channel.close()
            raise
        return channel

    async def _images(self) -> dict[Path, bool]:
        """Return the disk images in the guest's order, and whether each is read-only."""
        spec = self._spec
        if spec.rootfs is RootfsMode.EXT4:
            return {spec.root: False}
        return {spec.root: True, await make_scratch(spec.scratch_folder, spec.resources.disk_bytes): False}

    def _command(
        self, files: VmmFiles, images: dict[Path, bool], *, monitor_fd: int, channel_fd: int, network_fd: int | None
    ) -> tuple[str, ...]:
        spec = self._spec
        return qemu_command(
            QemuMachine(
                binary=self._installation.binary,
                machine=self._machine,
                accelerator=self._accelerator,
                vcpus=spec.resources.vcpus,
                memory_bytes=spec.resources.memory_bytes,
                kernel=files.named(self._boot.kernel.image),
                initramfs=files.named(self._boot.initramfs),
                command_line=kernel_command_line(
                    machine=self._machine,
                    accelerator=self._accelerator,
                    tsc_khz=self._tsc_khz,
                    console=console_name(self._machine) if spec.debug_boot else "",
                ),
                disks=tuple(
                    Disk(fd=files.disk(path, read_only=read_only), read_only=read_only)
                    for path, read_only in images.items()
                ),
                monitor_fd=monitor_fd,
                channel_fd=channel_fd,
                network_fd=network_fd,
                console_fd=files.log(spec.workspace / "console.log") if spec.debug_boot else None,
                seccomp=self._installation.seccomp,
                name=spec.name,
            )
        )

    def _start_network(self) -> socket.socket:
        self._passt, connection = start_passt(self._passt_log, cgroup_procs=self.cgroup.helper_files)
        note_process(self._spec.workspace, self._passt.pid)
        return connection

    def _spawn(self, command: tuple[str, ...], inherited: tuple[int, ...]) -> None:
        with self._log.open("wb") as errors:
            self.child = spawn(
                as_user(self._user, command),
                stderr=errors,
                pass_fds=inherited,
                cgroup_procs=self.cgroup.vmm_files,
            )
        note_process(self._spec.workspace, self.child.pid)

    async def _let_run(self, connection: socket.socket) -> None:
        assert self.child is not None
        spec = self._spec
        await self.monitor.connect(connection)
        if spec.cpus or spec.helper_cpus:
            threads = await self.monitor.vcpu_threads()
            await in_thread(self._bind, self.child.pid, threads)
        await self.monitor.call("cont")

    def _bind(self, pid: int, threads: tuple[int, ...]) -> None:
        bind_vmm(pid, threads, cpus=self._spec.cpus, helper_cpus=self._spec.helper_cpus)

    async def last_words(self) -> MetalmarkError | None:
        """Wait for QEMU's end, and explain it from what it said; None when it was the guest that ended."""
        if self.child is None:
            return None
        code = await self.child.wait()
        if self._passt is not None and self._passt.returncode:
            return passt_failure(self._passt_log)
        text = self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""
        said = " / ".join(text.strip().splitlines()[-_LAST_LINES:])
        return explain_end(code, said)

    def kill(self) -> None:
        """Kill QEMU at once."""
        if self.child is not None:
            self.child.signal(9)

    async def stop(self) -> bool:
        """Kill what runs and give everything back; safe to repeat.

        Returns:
            False: something could not be taken down and is left to the next sweep.
        """
        for child in (self.child, self._passt):
            if child is not None:
                await in_thread(child.close)
        self.child = self._passt = None
        await self.monitor.close()
        return await self.cgroup.remove()

    @property
    def _log(self) -> Path:
        return self._spec.workspace / "qemu.log"

    @property
    def _passt_log(self) -> Path:
        return self._spec.workspace / "passt.log"


def explain_end(code: int, said: str) -> MetalmarkError | None:
    """Return the error for QEMU's end.

    Args:
        code: Its exit code; negative: signal.
        said: The last lines of its stderr.
    """
    if code == 0:
        return BoxLost("the guest switched itself off, or its kernel panicked", why="the benchmark ended with it")
    if code < 0:
        return BoxLost(f"QEMU was killed by signal {-code}", why=said)
    if "annot set up guest memory" in said or "annot allocate memory" in said:
        return StableError("the host has not enough free memory for the box", why=said, hint="give --memory less")
    if "Permission denied" in said:
        return NoPermission("QEMU may not open a file that it needs", why=said)
    return StableError(f"QEMU ended with {code}", why=said or os.strerror(code), hint="see `metalmark host doctor`")


def _pair(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    """Make a connected pair; the second end is the VMM's and closed with the stack."""
    ours, theirs = socket.socketpair()
    stack.enter_context(theirs)
    return ours, theirs
