"""The host's side of a container box: the runtime in the box's mount namespace."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from pathlib import Path

from metalmark.model import SandboxUnavailable
from metalmark.sandbox.container_config import MAX_OPEN_FILES, ContainerPlan, container_config
from metalmark.sandbox.furnished_root import etc_files, furnish_root
from metalmark.sandbox.host_side import HostSide
from metalmark.sandbox.mounted_root import mount_root
from metalmark.sandbox.oci_runtime import OciRuntime, renumbered
from metalmark.sandbox.port import BoxSpec
from metalmark.system import Namespace, bind, find_tool, max_open_files, spawn

_SOCKET_FD = 3


class ContainerProcess(HostSide):
    """One container, from its namespaces to its end.

    Args:
        spec: The box.
        templates: Folder of empty scratch disks to copy from.
        runtime: What makes it.
        agent: The guest agent's binary.
        machine: Architecture, as ``uname -m`` has it.
        bare: ``spec.root`` is an empty folder on the host, to find out with whether containers work.
    """

    def __init__(
        self, spec: BoxSpec, *, templates: Path, runtime: OciRuntime, agent: Path, machine: str, bare: bool = False
    ) -> None:
        super().__init__(spec, templates=templates)
        self._runtime = runtime
        self._agent = agent
        self._machine = machine
        self._bare = bare

    @property
    def cgroup_fds(self) -> tuple[int, ...]:
        """Descriptors, as the agent has them, of the files through which commands join their cgroup."""
        return tuple(range(_SOCKET_FD + 1, _SOCKET_FD + 1 + len(self.cgroup.commands_files())))

    async def _scratch(self) -> Path | None:
        return None if self._bare else await super()._scratch()

    def _mount(self, scratch: Path | None) -> None:
        spec = self.spec
        if self._bare:
            (spec.workspace / "root").mkdir()
            bind(spec.root, spec.workspace / "root")
            return
        root = mount_root(root=spec.root, mode=spec.rootfs, scratch=scratch, workspace=spec.workspace)
        furnish_root(root, workspace=spec.workspace, files=etc_files(spec))

    async def _launch(self) -> socket.socket:
        spec = self.spec
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
        mount_namespace = self.thread.descriptor(Namespace.MOUNT)
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
        spec = self.spec
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
                text = (self.spec.workspace / name).read_text(encoding="utf-8", errors="replace")
                lines += [line.strip() for line in text.splitlines() if line.strip()]
        return " / ".join(dict.fromkeys(lines[-3:]))[-1000:]
