"""The host's side of a box without a kernel of its own: cgroups, namespaces, mounts, network; made and taken down."""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from pathlib import Path

from metalmark.model import RootfsMode
from metalmark.sandbox.leftovers import Kind, note
from metalmark.sandbox.mounted_root import loops_gone
from metalmark.sandbox.pasta import PastaPlan, start_pasta
from metalmark.sandbox.port import BoxSpec
from metalmark.sandbox.scratch import make_scratch
from metalmark.system import (
    BoxCgroup,
    CgroupLimits,
    Child,
    Namespace,
    NamespaceThread,
    bind,
    in_thread,
    raise_loopback,
    read_layout,
)


def limits_of(spec: BoxSpec) -> CgroupLimits:
    """Return the cgroup limits of a box: its own CPUs, or as much time as its vCPUs would have on any."""
    resources = spec.resources
    return CgroupLimits(
        cpus=spec.cpus,
        agent_cpus=spec.helper_cpus,
        cpu_quota=0.0 if len(spec.cpus) == resources.vcpus else float(resources.vcpus),
        memory_bytes=resources.memory_bytes,
        pids=resources.pids,
    )


class HostSide(ABC):
    """Everything of one box that is on the host. `stop` undoes whatever `start` got to.

    Args:
        spec: The box.
        templates: Folder of empty scratch disks to copy from.
    """

    namespaces = Namespace.MOUNT | Namespace.NETWORK
    """The namespaces of the thread that mounts; a runtime makes the others."""

    def __init__(self, spec: BoxSpec, *, templates: Path) -> None:
        self.spec = spec
        self._templates = templates
        self.cgroup = BoxCgroup(read_layout(), spec.name)
        self.child: Child | None = None
        """The process whose end is the box's end."""
        self._thread: NamespaceThread | None = None
        self._pasta: Child | None = None
        self._disks: tuple[Path, ...] = ()

    @property
    def thread(self) -> NamespaceThread:
        """The thread with the box's namespaces, once there is one."""
        assert self._thread is not None
        return self._thread

    @property
    @abstractmethod
    def cgroup_fds(self) -> tuple[int, ...]:
        """Descriptors, as the agent has them, of the files through which commands join their cgroup."""

    @abstractmethod
    def _mount(self, scratch: Path | None) -> None:
        """Mount the root; runs in the thread."""

    @abstractmethod
    async def _launch(self) -> socket.socket:
        """Start the agent; return the host's end of its channel."""

    async def start(self) -> socket.socket:
        """Make everything and start the agent in it; return the host's end of its channel.

        Raises:
            NoPermission, NoSpace, StableError, ToolMissing, PhaseTimeout
        """
        spec = self.spec
        note(spec.workspace, Kind.CGROUP, spec.name)
        await in_thread(self._make_groups)
        scratch = await self._scratch()
        await self.thread.run(lambda: self._fill(scratch))
        if spec.network:
            await self._start_network()
        return await self._launch()

    def _make_groups(self) -> None:
        self.cgroup.create(limits_of(self.spec))
        self._thread = NamespaceThread(self.namespaces)

    def _fill(self, scratch: Path | None) -> None:
        self._name_network()
        self._mount(scratch)

    async def _scratch(self) -> Path | None:
        spec = self.spec
        if spec.rootfs is RootfsMode.EXT4:
            self._disks = (spec.root,)
            return None
        scratch = await make_scratch(spec.scratch_folder, spec.resources.disk_bytes, templates=self._templates)
        self._disks = (scratch,)
        return scratch

    def _name_network(self) -> None:
        raise_loopback()
        handle = self.spec.workspace / "netns"
        handle.touch()
        bind(Path("/proc/thread-self/ns/net"), handle)

    async def _start_network(self) -> None:
        workspace = self.spec.workspace
        plan = PastaPlan(
            network_namespace=workspace / "netns",
            mount_namespace=self.thread.descriptor(Namespace.MOUNT),
            pid_file=workspace / "pasta.pid",
            log=workspace / "pasta.log",
        )
        self._pasta = await start_pasta(plan, cgroup_procs=self.cgroup.procs_files("agent"))

    async def stop(self) -> bool:
        """Kill what runs and take everything down; safe to repeat.

        Returns:
            False: something could not be taken down and is left to the next sweep.
        """
        clean = await in_thread(self.cgroup.kill)
        for child in (self.child, self._pasta):
            if child is not None:
                await in_thread(child.close)
        self.child = self._pasta = None
        clean = await in_thread(self.cgroup.remove) and clean
        if self._thread is not None:
            await in_thread(self._thread.close)
            self._thread = None
            clean = await loops_gone(*self._disks) and clean
        return clean
