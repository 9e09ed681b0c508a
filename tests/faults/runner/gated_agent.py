"""A guest agent that waits where a test wants it to: after the boot, before it sets a box up, before it sends files.

The first process of a guest cannot be held from the host without holding its whole machine, so this agent is built to
wait by itself: the real sources, with three functions wrapped by the linker. In a microVM it asks at a second virtio
port, which a QEMU that is found on PATH leads to `Gate`; in a container it looks at the mode of its own file, and its
name says that it waits.
"""

from __future__ import annotations

import importlib
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import pytest

GUEST = Path(__file__).parents[3] / "guest"
GATE = Path(__file__).with_name("gate.c")
HELD_NAME = "mm-held"
"""What a waiting agent of a container is called."""
LETTERS = {"kernel": b"k", "agent": b"a", "collect": b"c"}
_MODES = {"agent": 0o775, "collect": 0o757}
_OPEN_MODE = 0o755
_QEMU = """#!/bin/sh
# Without a machine it is asked what it can do.
case " $* " in *" -kernel "*) ;; *) exec {real} "$@" ;; esac
while [ -e {hold} ]; do /bin/sleep 0.05; done
exec {real} "$@" -chardev socket,id=gate,path={socket} -device virtserialport,chardev=gate,name=gate
"""
_SITE = """
import importlib
module = importlib.import_module("metalmark.sandbox.agent_binary")
from pathlib import Path
module.agent_binary.__kwdefaults__["folder"] = Path({folder!r})
"""


def build_gated_agent(folder: Path) -> Path:
    """Compile the agent of this machine's architecture into a folder, and return it."""
    if shutil.which("musl-gcc") is None:
        pytest.skip("musl-gcc is not installed (package musl-tools)")
    made = folder / "agent"
    wrapped = [f"-Wl,--wrap={name}" for name in ("boot_machine", "setup_box", "transfer_start")]
    sources = sorted(str(path) for path in GUEST.glob("*.c"))
    subprocess.run(
        ["musl-gcc", "-std=c11", "-D_GNU_SOURCE", "-O1", "-static", "-s", f"-I{GUEST}", *wrapped, "-o", made,
         *sources, GATE],
        check=True,
    )  # fmt: skip
    return made


class Gate:
    """Where the gated agents of one runner ask whether they may go on. Use as a context manager.

    Args:
        folder: One that everybody may enter: QEMU is a stranger.
        agent: The gated agent.
        qemu: The real QEMU; None where there is none.
    """

    def __init__(self, folder: Path, agent: Path, qemu: str | None) -> None:
        self._folder = folder
        self._machine = os.uname().machine
        self._closed = ""
        self._lock = threading.Lock()
        self._waiting: list[socket.socket] = []
        self._agent = folder / "agents" / f"metalmark-agent-{self._machine}"
        self._agent.parent.mkdir()
        shutil.copy(agent, self._agent)
        self._agent.chmod(_OPEN_MODE)
        for packaged in _packaged_agents().glob("metalmark-*"):
            if packaged.name != self._agent.name:
                (self._agent.parent / packaged.name).symlink_to(packaged)
        (folder / "site").mkdir()
        (folder / "site/sitecustomize.py").write_text(_SITE.format(folder=str(self._agent.parent)))
        (folder / "bin").mkdir()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / "socket"))
        (folder / "socket").chmod(0o777)
        self._listener.listen(16)
        if qemu is not None:
            tool = folder / "bin" / Path(qemu).name
            tool.write_text(_QEMU.format(real=qemu, hold=self.spawn_hold, socket=folder / "socket"))
            tool.chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which a runner uses this agent, and this way to start QEMU."""
        return {"PATH": f"{self._folder / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(self._folder / "site")}

    @property
    def spawn_hold(self) -> Path:
        """While this file is there, QEMU does not start."""
        return self._folder / "hold-spawn"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="gate", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.open()
        # Closed alone, a listener still has whoever waits for it.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def close(self, phase: str) -> None:
        """From now on agents wait in a phase."""
        with self._lock:
            self._closed = phase
        self._agent.chmod(_MODES.get(phase, _OPEN_MODE))

    def open(self) -> None:
        """Let everybody pass."""
        self._agent.chmod(_OPEN_MODE)
        with self._lock:
            self._closed = ""
            for connection in self._waiting:
                with suppress(OSError):
                    connection.send(b"!")
            self._waiting.clear()

    def is_waited_at(self, processes: list[int]) -> bool:
        """Whether an agent waits: one of a microVM, or one of a container among some processes."""
        with self._lock:
            if self._waiting:
                return True
        return any(_name_of(pid) == HELD_NAME for pid in processes)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._hear, args=(connection,), name="gate", daemon=True).start()

    def _hear(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while letter := connection.recv(1):
                with self._lock:
                    if LETTERS.get(self._closed) == letter:
                        self._waiting.append(connection)
                    else:
                        connection.send(b"!")
            with self._lock:
                # Its machine is gone.
                self._waiting = [other for other in self._waiting if other is not connection]


@contextmanager
def standing_gate(agent: Path, qemu: str | None) -> Iterator[Gate]:
    """Give a gate in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="mm-gate-"))
    folder.chmod(0o755)
    try:
        with Gate(folder, agent, qemu) as gate:
            yield gate
    finally:
        shutil.rmtree(folder)


def _packaged_agents() -> Path:
    module = importlib.import_module("metalmark.sandbox.agent_binary")
    assert module.__file__ is not None
    return Path(module.__file__).parent / "agent"


def _name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
