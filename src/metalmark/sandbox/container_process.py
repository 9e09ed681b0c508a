"""The host's side of a container box: namespaces, mounts, cgroup, network and runtime, made and taken down."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from pathlib import Path

from metalmark.model import RootfsMode, SandboxUnavailable
from metalmark.sandbox.container_config import MAX_OPEN_FILES, ContainerPlan, container_config
from metalmark.sandbox.furnished_root import etc_files, furnish_root
from metalmark.sandbox.leftovers import Kind, note
from metalmark.sandbox.mounted_root import loops_gone, mount_root
from metalmark.sandbox.oci_runtime import OciRuntime, renumbered
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
    find_tool,
    in_thread,
    max_open_files,
    raise_loopback,
    read_layout,
    spawn,
)

_SOCKET_FD = 3


def limits_of(spec: BoxSpec) -> CgroupLimits:
    """Return the cgroup limits of a box: its own CPUs, or as much time as its vCPUs would have on any."""
    resources = spec.resources
    unbound = len(spec.cpus) < resources.vcpus or not spec.cpus
    return CgroupLimits(
        cpus=spec.cpus,
        cpu_quota=float(resources.vcpus) if unbound else 0.0,
        memory_bytes=resources.memory_bytes,
        pids=resources.pids,
    )


class ContainerProcess:
    """One container, from its namespaces to its end. `stop` undoes whatever `start` got to."""

    def __init__(self, spec: BoxSpec, *, runtime: OciRuntime, agent: Path, machine: str) -> None:
        self._spec = spec
        self._runtime = runtime
        self._agent = agent
        self._machine = machine
        self._namespaces: NamespaceThread | None = None
        self._pasta: Child | None = None
        self._disks: tuple[Path, ...] = ()
        self.child: Child | None = None
        """The runtime, which lives as long as the container."""
        self.cgroup = BoxCgroup(read_layout(), spec.name)

    @property
    def cgroup_fds(self) -> tuple[int, ...]:
        """Descriptors, as the agent has them, of the files through which commands join their cgroup."""
        return tuple(range(_SOCKET_FD + 1, _SOCKET_FD + 1 + len(self.cgroup.commands_files())))

    async def start(self) -> socket.socket:
        """Make everything and start the agent in it; return the host's end of its channel.

        Raises:
            NoPermission, NoSpace, StableError, ToolMissing, PhaseTimeout
        """
        spec = self._spec
        note(spec.workspace, Kind.CGROUP, spec.name)
        await in_thread(self.cgroup.create, limits_of(spec))
        scratch = None
        if spec.rootfs is RootfsMode.OVERLAY:
            scratch = await make_scratch(spec.scratch_folder, spec.resources.disk_bytes)
        self._disks = (scratch or spec.root,)
        namespaces = Namespace.MOUNT | Namespace.NETWORK
        self._namespaces = await in_thread(NamespaceThread, namespaces)
        await self._namespaces.run(lambda: self._mount(scratch))
        if spec.network:
            await self._start_network()
        return await self._start_runtime()

    def _mount(self, scratch: Path | None) -> None:
        spec = self._spec
        raise_loopback()
        handle = spec.workspace / "netns"
        handle.touch()
        bind(Path("/proc/thread-self/ns/net"), handle)
        root = mount_root(root=spec.root, mode=spec.rootfs, scratch=scratch, workspace=spec.workspace)
        furnish_root(root, workspace=spec.workspace, files=etc_files(spec))

    async def _start_network(self) -> None:
        spec, namespaces = self._spec, self._namespaces
        assert namespaces is not None
        plan = PastaPlan(
            network_namespace=spec.workspace / "netns",
            mount_namespace=namespaces.descriptor(Namespace.MOUNT),
            pid_file=spec.workspace / "pasta.pid",
            log=spec.workspace / "pasta.log",
        )
        self._pasta = await start_pasta(plan, cgroup_procs=self.cgroup.procs_files("agent"))

    async def _start_runtime(self) -> socket.socket:
        spec, namespaces = self._spec, self._namespaces
        assert namespaces is not None
        bundle = spec.workspace / "bundle"
        bundle.mkdir()
        (bundle / "config.json").write_text(json.dumps(self._config()), encoding="utf-8")
        files = self.cgroup.commands_files()
        runtime = self._runtime.run_argv(
            name=spec.name,
            bundle=bundle,
            state=spec.workspace / "runtime",
            log=spec.workspace / "runtime.log",
            descriptors=1 + len(files),
        )
        mount_namespace = namespaces.descriptor(Namespace.MOUNT)
        argv = [find_tool("nsenter"), f"--mount=/proc/self/fd/{mount_namespace}", *runtime]
        host, guest = socket.socketpair()
        try:
            with guest, (spec.workspace / "runtime.err").open("wb") as errors:
                self.child = spawn(
                    renumbered(files, argv),
                    stdin=guest.fileno(),
                    stderr=errors,
                    pass_fds=(mount_namespace,),
                    cgroup_procs=self.cgroup.procs_files("agent"),
                )
        except BaseException:
            host.close()
            raise
        return host

    def _config(self) -> dict[str, object]:
        spec = self._spec
        return container_config(
            ContainerPlan(
                root=spec.workspace / "root",
                agent=self._agent,
                agent_argv=("serve", str(_SOCKET_FD)),
                hostname=spec.hostname,
                resources=spec.resources,
                cgroup=f"{self.cgroup.path}/job",
                network_namespace=spec.workspace / "netns",
                machine=self._machine,
                open_files=min(MAX_OPEN_FILES, max_open_files()),
            )
        )

    def failure(self) -> SandboxUnavailable:
        """Explain, from the runtime's own words, why the container did not come up."""
        return SandboxUnavailable(
            f"{self._runtime.name} did not start the container",
            why=self._messages() or "it said nothing",
            hint="try another runtime with --oci-runtime, or another sandbox",
        )

    def _messages(self) -> str:
        lines: list[str] = []
        for name in ("runtime.log", "runtime.err"):
            with suppress(OSError):
                text = (self._spec.workspace / name).read_text(encoding="utf-8", errors="replace")
                lines += [line.strip() for line in text.splitlines() if line.strip()]
        return " / ".join(dict.fromkeys(lines[-3:]))[-1000:]

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
        if self._namespaces is not None:
            await in_thread(self._namespaces.close)
            self._namespaces = None
            clean = await loops_gone(*self._disks) and clean
        return clean
