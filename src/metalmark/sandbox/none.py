"""The sandbox ``none``: directly on the host, with the image's files. Only when the user has asked for the danger."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio.abc import ByteStream, TaskGroup, UNIXSocketStream

from metalmark.model import MetalmarkError, SandboxName, SandboxUnavailable, ToolMissing
from metalmark.sandbox.accounted_box import AccountedBox
from metalmark.sandbox.agent_binary import agent_binary
from metalmark.sandbox.box_life import living
from metalmark.sandbox.none_process import NoneProcess
from metalmark.sandbox.port import Accelerator, Availability, Box, BoxFacts, BoxSpec, Driver
from metalmark.sandbox.scratch import templates_folder
from metalmark.sandbox.settings import DriverSettings
from metalmark.system import BoxCgroup, CgroupVersion, find_tool, has_privilege, read_layout
from metalmark.wire import Hello, Setup


class NoneBox(AccountedBox):
    """One box of the sandbox ``none``."""

    boot_limit_s = 30.0

    def __init__(self, spec: BoxSpec, tasks: TaskGroup, *, process: NoneProcess) -> None:
        super().__init__(spec, tasks)
        self._process = process

    @property
    def cgroup(self) -> BoxCgroup:
        """The box's cgroups."""
        return self._process.cgroup

    @property
    def facts(self) -> BoxFacts:
        """What this box is; complete once it has started."""
        return BoxFacts(
            sandbox=SandboxName.NONE,
            accelerator=Accelerator.NATIVE,
            kernel=self._hello.kernel if self._hello else os.uname().release,
            details={"cgroup": str(self.cgroup.layout.version)},
            warnings=("the benchmark ran without a sandbox", *self.cgroup.warnings),
        )

    async def _spawn(self) -> ByteStream:
        return await UNIXSocketStream.from_socket(await self._process.start())

    def _setup(self, hello: Hello) -> Setup:
        del hello
        return Setup(hostname=self.spec.hostname, cgroup_fds=self._process.cgroup_fds)

    async def _cause(self) -> MetalmarkError | None:
        # An agent that has spoken is one that works here: it was killed.
        return self._process.failure() if self._hello is None else None

    async def _end(self) -> None:
        await self._process.stop()


class NoneDriver(Driver):
    """Makes boxes that are none."""

    def __init__(self, settings: DriverSettings) -> None:
        self._settings = settings

    @property
    def name(self) -> SandboxName:
        """Which kind."""
        return SandboxName.NONE

    async def probe(self) -> Availability:
        """Find out whether this user may make the mounts and cgroups."""
        try:
            self._require()
        except MetalmarkError as error:
            return Availability(usable=False, reason=str(error), hint=error.hint)
        return Availability(usable=True, accelerator=Accelerator.NATIVE, reason="this user may mount and make cgroups")

    def _require(self) -> None:
        if not self._settings.allow_none:
            raise SandboxUnavailable(
                "it was not allowed",
                why="it runs the image's programs directly on this machine, where they can do whatever this user can",
                hint="give --danger-allow-no-sandbox if you trust the image, or choose another --sandbox",
            )
        if not has_privilege():
            raise SandboxUnavailable(
                "this user may not mount file systems and make cgroups",
                why="the image's files are mounted in a namespace of their own",
                hint="run as root, for example with sudo; qemu works for an ordinary user",
            )
        if read_layout().version is CgroupVersion.NONE:
            raise SandboxUnavailable("no cgroups are mounted", hint="mount -t cgroup2 none /sys/fs/cgroup")
        find_tool("mke2fs", hint="apt-get install e2fsprogs")

    @asynccontextmanager
    async def create(self, spec: BoxSpec) -> AsyncIterator[Box]:
        """Make a box that has not started; leaving the context stops and removes it.

        Raises:
            SandboxUnavailable: It was not allowed, or something that is needed is missing.
        """
        try:
            self._require()
            agent = self._settings.agent or agent_binary(self._settings.machine)
        except ToolMissing as error:
            raise SandboxUnavailable(error.found, why=error.why, hint=error.hint) from error
        process = NoneProcess(spec, templates=templates_folder(self._settings.folders), agent=agent)
        async with living(lambda tasks: NoneBox(spec, tasks, process=process)) as box:
            yield box
