"""Firecracker itself, from its disks to its end."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import Final

from metalmark.model import BoxLost, MetalmarkError, NoSpace, RootfsMode, StableError
from metalmark.sandbox.cmdline import kernel_command_line
from metalmark.sandbox.firecracker_api import FirecrackerApi, boot_source, drive, machine_config, vsock
from metalmark.sandbox.leftovers import note_process
from metalmark.sandbox.microvm import Boot
from metalmark.sandbox.port import Accelerator, BoxSpec
from metalmark.sandbox.scratch import make_scratch
from metalmark.sandbox.vcpu_binding import bind_vmm
from metalmark.sandbox.vmm_cgroup import VmmCgroup
from metalmark.system import Child, in_thread, monotonic_s, sleep_s, spawn, threads_of

AGENT_PORT: Final = 52
_API: Final = "api.sock"
_VSOCK: Final = "vsock.sock"
_UP_LIMIT_S: Final = 5.0
_THREADS_LIMIT_S: Final = 1.0
_POLL_S: Final = 0.002
_VCPU_THREAD: Final = re.compile(r"fc_vcpu (\d+)")


class FirecrackerProcess:
    """One Firecracker. `stop` undoes whatever `start` got to.

    Sockets are named relative to the workspace: the path of a unix socket holds 107 bytes, a workspace's may have more.
    """

    def __init__(self, spec: BoxSpec, *, binary: Path, machine: str, boot: Boot) -> None:
        self._spec = spec
        self._binary = binary
        self._machine = machine
        self._boot = boot
        self._folder: int | None = None
        self.version = ""
        self.child: Child | None = None
        self.cgroup = VmmCgroup(spec, emulated=False)

    async def start(self) -> socket.socket:
        """Start Firecracker and the guest, bind the threads; return the socket on which the agent will connect.

        Raises:
            NoSpace, ToolMissing, BoxTooSmall, PhaseTimeout, BoxLost, StableError
        """
        drives = await self._drives()
        await self.cgroup.create()
        self._folder = os.open(self._spec.workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        listener = socket.socket(socket.AF_UNIX)
        try:
            self._spawn()
            async with FirecrackerApi(self._path(_API)) as api:
                self.version = await self._wait_up(api)
                await self._configure(api, drives)
                listener.bind(str(self._path(f"{_VSOCK}_{AGENT_PORT}")))
                listener.listen(1)
                await api.put("/actions", {"action_type": "InstanceStart"})
            await self._bind()
        except BaseException:
            listener.close()
            raise
        return listener

    async def _drives(self) -> tuple[tuple[Path, bool], ...]:
        spec = self._spec
        if spec.rootfs is RootfsMode.EXT4:
            return ((spec.root, False),)
        return ((spec.root, True), (await make_scratch(spec.scratch_folder, spec.resources.disk_bytes), False))

    def _path(self, name: str) -> Path:
        return Path(f"/proc/self/fd/{self._folder}") / name

    def _spawn(self) -> None:
        spec = self._spec
        argv = [str(self._binary), "--api-sock", _API, "--id", spec.name, "--level", "Warning"]
        # The guest has a serial port in any case, and a file that it writes to could fill the host's disk.
        output = spec.workspace / "console.log" if spec.debug_boot else Path(os.devnull)
        with self._log.open("wb") as errors, output.open("wb") as console:
            self.child = spawn(
                argv, cwd=spec.workspace, stdout=console, stderr=errors, cgroup_procs=self.cgroup.vmm_files
            )
        note_process(spec.workspace, self.child.pid)

    async def _wait_up(self, api: FirecrackerApi) -> str:
        child = self.child
        assert child is not None
        return await api.wait_up(limit_s=_UP_LIMIT_S, alive=lambda: child.returncode is None)

    async def _configure(self, api: FirecrackerApi, drives: tuple[tuple[Path, bool], ...]) -> None:
        resources = self._spec.resources
        await api.put("/machine-config", machine_config(vcpus=resources.vcpus, memory_bytes=resources.memory_bytes))
        command_line = kernel_command_line(
            machine=self._machine,
            accelerator=Accelerator.KVM,
            console="ttyS0" if self._spec.debug_boot else "",
            vsock_port=AGENT_PORT,
            firecracker=True,
        )
        await api.put(
            "/boot-source",
            boot_source(kernel=self._boot.kernel.image, initramfs=self._boot.initramfs, command_line=command_line),
        )
        for number, (path, read_only) in enumerate(drives):
            name = f"disk{number}"
            await api.put(f"/drives/{name}", drive(name=name, path=path, read_only=read_only))
        await api.put("/vsock", vsock(socket_path=_VSOCK))

    async def _bind(self) -> None:
        """Bind the threads; Firecracker names them, and makes them when the instance starts."""
        spec, child = self._spec, self.child
        assert child is not None
        if not spec.cpus and not spec.helper_cpus:
            return
        deadline = monotonic_s() + _THREADS_LIMIT_S
        while len(found := vcpu_threads(child.pid)) < spec.resources.vcpus:
            if monotonic_s() > deadline:
                wanted = f"{spec.resources.vcpus} were asked for"
                raise BoxLost(f"Firecracker has {len(found)} vCPU threads", why=wanted)
            await sleep_s(_POLL_S)
        await in_thread(self._bind_now, child.pid, found)

    def _bind_now(self, pid: int, threads: tuple[int, ...]) -> None:
        bind_vmm(pid, threads, cpus=self._spec.cpus, helper_cpus=self._spec.helper_cpus)

    async def last_words(self) -> MetalmarkError | None:
        """Wait for Firecracker's end, and explain it from what it said."""
        if self.child is None:
            return None
        code = await self.child.wait()
        text = self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""
        return explain_end(code, " / ".join(text.strip().splitlines()[-3:]))

    def kill(self) -> None:
        """Kill Firecracker at once."""
        if self.child is not None:
            self.child.signal(9)

    async def stop(self) -> bool:
        """Kill what runs and give everything back; safe to repeat.

        Returns:
            False: something could not be taken down and is left to the next sweep.
        """
        if self.child is not None:
            await in_thread(self.child.close)
            self.child = None
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None
        return await self.cgroup.remove()

    @property
    def _log(self) -> Path:
        return self._spec.workspace / "firecracker.log"


def vcpu_threads(pid: int) -> tuple[int, ...]:
    """Return the vCPU threads of a Firecracker process, vCPU 0 first; fewer than all while they are made."""
    found = {int(match[1]): thread.tid for thread in threads_of(pid) if (match := _VCPU_THREAD.fullmatch(thread.name))}
    return tuple(found[number] for number in sorted(found))


def explain_end(code: int, said: str) -> MetalmarkError:
    """Return the error for Firecracker's end.

    Args:
        code: Its exit code; negative: signal.
        said: The last lines of its stderr.
    """
    if code == 0:
        return BoxLost("the guest switched itself off, or its kernel panicked", why="the benchmark ended with it")
    if code < 0:
        return BoxLost(f"Firecracker was killed by signal {-code}", why=said)
    if "No space left" in said:
        return NoSpace("no space left on the host for a box's disk", hint="free some with `metalmark image gc`")
    why = said or "it said nothing"
    return StableError(f"Firecracker ended with {code}", why=why, hint="see `metalmark host doctor`")
