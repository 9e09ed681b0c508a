"""The sandbox ``container``: an OCI runtime, the guest agent as the container's first process, cgroups for limits."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from anyio.abc import ByteStream, TaskGroup, UNIXSocketStream

from metalmark.model import (
    MIB,
    InputError,
    MetalmarkError,
    Resources,
    RootfsMode,
    SandboxName,
    SandboxUnavailable,
    ToolMissing,
)
from metalmark.sandbox.accounted_box import AccountedBox
from metalmark.sandbox.agent_binary import agent_binary
from metalmark.sandbox.box_life import living
from metalmark.sandbox.container_process import ContainerProcess
from metalmark.sandbox.oci_runtime import OciRuntime, find_runtime
from metalmark.sandbox.port import Accelerator, Availability, Box, BoxFacts, BoxSpec, Driver
from metalmark.sandbox.scratch import templates_folder
from metalmark.sandbox.settings import DriverSettings
from metalmark.system import BoxCgroup, CgroupVersion, find_tool, has_privilege, read_layout
from metalmark.wire import Hello, Setup

_PROBE_S = 10.0
"""A tenth of a second is usual; an emulated or busy machine that takes seconds can run containers all the same."""


class ContainerBox(AccountedBox):
    """One container."""

    boot_limit_s = 30.0

    def __init__(self, spec: BoxSpec, tasks: TaskGroup, *, process: ContainerProcess, runtime: str) -> None:
        super().__init__(spec, tasks)
        self._process = process
        self._runtime = runtime

    @property
    def cgroup(self) -> BoxCgroup:
        """The box's cgroups."""
        return self._process.cgroup

    @property
    def facts(self) -> BoxFacts:
        """What this box is; complete once it has started."""
        return BoxFacts(
            sandbox=SandboxName.CONTAINER,
            accelerator=Accelerator.NATIVE,
            kernel=self._hello.kernel if self._hello else os.uname().release,
            details={
                "runtime": self._runtime,
                "cgroup": str(self.cgroup.layout.version),
            },
            warnings=self.cgroup.warnings,
        )

    async def _spawn(self) -> ByteStream:
        host = await self._process.start()
        try:
            # The greeting, or the end of a runtime that failed: until then it is the runtime's time, not the agent's.
            await anyio.wait_readable(host)
        except BaseException:
            host.close()
            raise
        return await UNIXSocketStream.from_socket(host)

    def _setup(self, hello: Hello) -> Setup:
        del hello
        return Setup(hostname=self.spec.hostname, cgroup_fds=self._process.cgroup_fds)

    async def _cause(self) -> MetalmarkError | None:
        # An agent that has spoken is one that works here: it was killed.
        return self._process.failure() if self._hello is None else None

    async def _end(self) -> None:
        await self._process.stop()


class ContainerDriver(Driver):
    """Makes containers."""

    def __init__(self, settings: DriverSettings) -> None:
        self._settings = settings
        self._version: str | None = None

    @property
    def name(self) -> SandboxName:
        """Which kind."""
        return SandboxName.CONTAINER

    async def probe(self) -> Availability:
        """Find out whether containers can be made here, by making one from an empty folder."""
        try:
            runtime = self._requirements()
            with anyio.fail_after(_PROBE_S):
                await self._try(runtime)
        except TimeoutError:
            return Availability(
                usable=False, reason=f"a trial container did not start within {_PROBE_S:g} s", hint="run it again"
            )
        except MetalmarkError as error:
            return Availability(usable=False, reason=str(error), hint=error.hint)
        version = read_layout().version
        return Availability(
            usable=True,
            accelerator=Accelerator.NATIVE,
            reason=f"a trial container ran ({runtime.name}, cgroup {version})",
        )

    def _requirements(self) -> OciRuntime:
        """Look for everything that is needed, and say of the first that is missing how to get it."""
        if not has_privilege():
            raise SandboxUnavailable(
                "this user may not mount file systems and make cgroups",
                why="a container is made of both",
                hint="run as root, for example with sudo; qemu works for an ordinary user",
            )
        if read_layout().version is CgroupVersion.NONE:
            raise SandboxUnavailable("no cgroups are mounted", hint="mount -t cgroup2 none /sys/fs/cgroup")
        if not Path("/dev/loop-control").exists():
            raise SandboxUnavailable("/dev/loop-control does not exist", hint="modprobe loop")
        find_tool("mke2fs", hint="apt-get install e2fsprogs")
        find_tool("nsenter", hint="apt-get install util-linux")
        return find_runtime(self._settings.oci_runtime)

    async def _try(self, runtime: OciRuntime) -> None:
        with tempfile.TemporaryDirectory(prefix="metalmark-probe-") as folder:
            spec = BoxSpec(
                name=f"probe-{os.getpid()}-{os.urandom(4).hex()}",
                root=Path(folder) / "image",
                rootfs=RootfsMode.EXT4,
                workspace=Path(folder),
                resources=Resources(memory_bytes=64 * MIB),
            )
            spec.root.mkdir()
            async with self._life(spec, runtime, bare=True) as box:
                await box.start()

    @asynccontextmanager
    async def create(self, spec: BoxSpec) -> AsyncIterator[Box]:
        """Make a box that has not started; leaving the context stops and removes it.

        Raises:
            SandboxUnavailable: Something that is needed is missing.
        """
        try:
            runtime = self._requirements()
        except ToolMissing as error:
            raise SandboxUnavailable(error.found, why=error.why, hint=error.hint) from error
        if len(set(spec.cpus)) != len(spec.cpus):
            raise InputError("cpus", spec.cpus, "a CPU is named twice")
        async with self._life(spec, runtime) as box:
            yield box

    @asynccontextmanager
    async def _life(self, spec: BoxSpec, runtime: OciRuntime, *, bare: bool = False) -> AsyncIterator[Box]:
        machine = self._settings.machine
        agent = self._settings.agent or agent_binary(machine)
        if self._version is None:
            self._version = await runtime.version()
        version = f"{self._version} ({runtime.path})"
        process = ContainerProcess(
            spec,
            templates=templates_folder(self._settings.folders),
            runtime=runtime,
            agent=agent,
            machine=machine,
            bare=bare,
        )
        async with living(lambda tasks: ContainerBox(spec, tasks, process=process, runtime=version)) as box:
            yield box
