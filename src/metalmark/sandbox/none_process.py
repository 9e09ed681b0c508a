"""The host's side of the sandbox ``none``: the agent as the first process of namespaces that this program makes.

The files are the image's alone: a private mount namespace, into whose root the agent is moved by pivot_root before it
starts anything. So a program's loader and libraries are the image's, never the host's. There is no other isolation
than that of the namespaces: root in the box is root.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio

from metalmark.model import BoxLost, SandboxUnavailable
from metalmark.sandbox.container_config import AGENT_PATH
from metalmark.sandbox.furnished_root import etc_files, furnish_root
from metalmark.sandbox.host_side import HostSide
from metalmark.sandbox.mounted_root import mount_root
from metalmark.sandbox.port import BoxSpec
from metalmark.system import MountFlag, Namespace, bind, mount, pivot_root, set_hostname, spawn

_DEVICES = ("full", "null", "random", "tty", "urandom", "zero")
_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx"}
_SAFE = MountFlag.NO_SUID | MountFlag.NO_DEV | MountFlag.NO_EXEC
_FIRST = 'mount -t proc -o nosuid,nodev,noexec proc "$1" && echo >&0 && read -r _ && cd / && exec "$2" serve "$3"'
"""The first process of the pid namespace has to mount its ``/proc``, for the kernel takes the mounting process's. Then
it waits for its root to be exchanged: the agent is to see nothing of the host, not even at its start."""


class NoneProcess(HostSide):
    """One box of the sandbox ``none``.

    Args:
        spec: The box.
        templates: Folder of empty scratch disks to copy from.
        agent: The guest agent's binary.
    """

    namespaces = Namespace.MOUNT | Namespace.NETWORK | Namespace.IPC | Namespace.UTS | Namespace.PID

    def __init__(self, spec: BoxSpec, *, templates: Path, agent: Path) -> None:
        super().__init__(spec, templates=templates)
        self._agent = agent
        self._cgroup_fds: tuple[int, ...] = ()

    @property
    def cgroup_fds(self) -> tuple[int, ...]:
        """Descriptors, as the agent has them, of the files through which commands join their cgroup."""
        return self._cgroup_fds

    def _mount(self, scratch: Path | None) -> None:
        spec = self.spec
        set_hostname(spec.hostname)
        root = mount_root(root=spec.root, mode=spec.rootfs, scratch=scratch, workspace=spec.workspace)
        furnish_root(root, workspace=spec.workspace, files=etc_files(spec))
        mount_kernel_folders(root, shared_bytes=spec.resources.memory_bytes // 2)
        shown = root / AGENT_PATH.lstrip("/")
        shown.touch()
        bind(self._agent, shown, read_only=True)

    async def _launch(self) -> socket.socket:
        host, guest = socket.socketpair()
        ours, theirs = socket.socketpair()
        try:
            with ours:
                with guest, theirs, self._open_cgroups() as descriptors:
                    self._cgroup_fds = descriptors
                    await self.thread.run(lambda: self._spawn(guest.fileno(), theirs.fileno()))
                await self._heard(ours)
                # Moves the first process too: it has the namespace's old root.
                await self.thread.run(lambda: pivot_root(self.spec.workspace / "root"))
                ours.sendall(b"\n")
            await self._heard(host)
        except BaseException:
            host.close()
            raise
        return host

    def _spawn(self, channel: int, stdin: int) -> None:
        workspace = self.spec.workspace
        with (workspace / "agent.err").open("wb") as errors:
            self.child = spawn(
                ["/bin/sh", "-c", _FIRST, "sh", str(workspace / "root/proc"), AGENT_PATH, str(channel)],
                stdin=stdin,
                stderr=errors,
                pass_fds=(channel, *self._cgroup_fds),
                cgroup_procs=self.cgroup.procs_files("agent"),
                # It would die with the thread; it ends with its channel, and all others end with it.
                die_with_parent=False,
            )

    async def _heard(self, end: socket.socket) -> None:
        await anyio.wait_readable(end)
        if not end.recv(1, socket.MSG_PEEK):
            raise BoxLost("the guest agent did not start", why=self.messages())

    @contextmanager
    def _open_cgroups(self) -> Iterator[tuple[int, ...]]:
        opened: list[int] = []
        try:
            opened.extend(os.open(path, os.O_WRONLY | os.O_CLOEXEC) for path in self.cgroup.commands_files())
            yield tuple(opened)
        finally:
            for descriptor in opened:
                os.close(descriptor)

    def messages(self) -> str:
        """What the agent or its shell said before it ended."""
        try:
            text = (self.spec.workspace / "agent.err").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return " / ".join(text.splitlines()[-3:])[-1000:]

    def failure(self) -> SandboxUnavailable:
        """Explain why the agent did not come up."""
        return SandboxUnavailable(
            "the box did not start", why=self.messages() or "it said nothing", hint="use another sandbox"
        )


def mount_kernel_folders(root: Path, *, shared_bytes: int) -> None:
    """Mount ``/sys`` and ``/dev`` in a root, and make the folder for ``/proc``; runs in the box's thread.

    Raises:
        StableError, OSError: The image has something else there, or the kernel refused.
    """
    for name in ("proc", "sys", "dev"):
        if (root / name).is_symlink():
            raise SandboxUnavailable(f"the image's /{name} is a link", why="a file system is mounted there")
        (root / name).mkdir(exist_ok=True)
    mount("sysfs", root / "sys", "sysfs", flags=_SAFE | MountFlag.READ_ONLY)
    dev = root / "dev"
    mount("dev", dev, "tmpfs", flags=MountFlag.NO_SUID | MountFlag.NO_EXEC, data="mode=755,size=64k")
    for name in _DEVICES:
        (dev / name).touch()
        bind(Path("/dev") / name, dev / name)
    for name, target in _LINKS.items():
        (dev / name).symlink_to(target)
    for name in ("pts", "shm", "mqueue"):
        (dev / name).mkdir()
    mount("devpts", dev / "pts", "devpts", flags=_SAFE & ~MountFlag.NO_DEV, data="newinstance,ptmxmode=0666,mode=620")
    shared = f"mode=1777,size={shared_bytes}"
    mount("shm", dev / "shm", "tmpfs", flags=MountFlag.NO_SUID | MountFlag.NO_DEV, data=shared)
    mount("mqueue", dev / "mqueue", "mqueue", flags=_SAFE)
