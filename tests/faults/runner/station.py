"""A runner whose one job is held in one phase, so that a fault hits it there and nowhere else."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from metalmark.testing.faulty_line import FaultyLine, Line
from metalmark.testing.images import FakeImage, FakeLayer, tar_of
from metalmark.testing.leftover_listing import Listing
from metalmark.testing.rig import FINAL, Rig
from metalmark.testing.runner_process import RunnerProcess

HELD_TOOLS = {"rootfs": "mksquashfs", "spawn": "runc"}
"""Phases that are held by a program that waits before it begins."""
_WAITS = "echo begun; sleep 600; echo done"
"""A benchmark in a container: it goes on when the sleep is killed."""
PHASES = ("pull", "rootfs", "spawn", "kernel", "exec", "collect", "sent")
"""``sent`` is after the job: its end is on disk, and the server has not heard of it."""
_COUNTED = "echo begun; i=0; while [ $i -lt {tenths} ]; do sleep 0.1; i=$((i + 1)); done; echo done"
"""A benchmark in a microVM: so many tenths of a second, of which those count in which the machine is not stopped."""
_TOOL = """#!/bin/sh
while [ -e {hold} ]; do /bin/sleep 0.05; done
exec {real} "$@"
"""
REACHED_S = 60.0
_MISSES = 5


@dataclass(kw_only=True)
class Station:
    """One phase of one sandbox: a runner, the line to its server, and a job."""

    rig: Rig
    phase: str
    sandbox: str
    runner: RunnerProcess
    line: FaultyLine
    spec: str
    before: Listing
    number: int = 0
    job: str = ""
    held: list[Path] = field(default_factory=list)
    frozen: list[int] = field(default_factory=list)
    """Processes that are stopped."""
    cut: bool = False
    """Whether the server hears no more of this runner."""
    gate: threading.Event = field(default_factory=threading.Event)
    asked: dict[str, Any] = field(default_factory=dict)
    missed: int = 0
    """How often the phase was over before anybody looked."""

    @classmethod
    def open(cls, rig: Rig, stack: ExitStack, *, phase: str, sandbox: str, kernels: Path) -> Station:
        """Register and start the runner. Its line ends with the stack."""
        name = f"{sandbox}-{phase}"
        spec = rig.spec(name, sandbox)
        line = stack.enter_context(FaultyLine(rig.server.port))
        tools = rig.folder / f"{name}.bin"
        tools.mkdir()
        environment = {"PATH": f"{tools}:{os.environ['PATH']}"}
        options = ["--allow-emulation", "--poll-timeout", "5"]
        runner = rig.runner(name, spec, url=line.url, options=options, environment=environment, kernels=kernels)
        for held, tool in HELD_TOOLS.items():
            path = tools / tool
            real = _which(tool)
            path.write_text(_TOOL.format(hold=tools / f"hold-{held}", real=real))
            path.chmod(0o755)
        before = runner.leftovers()
        runner.start()
        return cls(rig=rig, phase=phase, sandbox=sandbox, runner=runner, line=line, spec=spec, before=before)

    @property
    def name(self) -> str:
        """Of the phase and sandbox."""
        return self.runner.home.name

    @property
    def stays(self) -> bool:
        """Whether the job stays in the phase until it is released."""
        return self.phase not in ("sent", "collect")

    def begin(self, *, retry: bool, exec_s: int) -> None:
        """Submit a job that will stay in the phase; in the benchmark of a microVM for so many seconds."""
        self.number += 1
        self.asked = {"retry": retry, "exec_s": exec_s}
        image = self.rig.image
        if self.phase in ("pull", "rootfs"):
            image, own = self._new_image()
            if self.phase == "pull":
                self.gate = threading.Event()
                self.rig.registry.behaviour.on_blob = partial(_await, self.gate, own)
        if self.phase in HELD_TOOLS:
            hold = self._tools / f"hold-{self.phase}"
            hold.touch()
            self.held.append(hold)
        script = _COUNTED.format(tenths=10 * exec_s)
        fields: dict[str, object] = {}
        if self.phase == "collect":
            script = "head -c 24000000 /dev/zero | tr '\\0' x > /work/big; echo begun; echo done"
            fields["file_paths"] = ["/work/big"]
        elif self.phase in ("spawn", "pull", "rootfs", "kernel"):
            script = "echo begun; echo done"
        elif self.sandbox == "container":
            script = _WAITS
        self.job = self.rig.submit(self.spec, "sh", "-c", script, image=image, retry=retry, **fields)

    def reached(self) -> bool:
        """Whether the job is in the phase by now, or as near to it as can be seen; from then on it is held there."""
        if self.phase == "sent" and self.cut:
            self._end_sleep()
            return bool(self.unsent())
        # A guest's boot is told as one phase.
        found, wanted = self.rig.job(self.job), {"sent": "exec", "kernel": "spawn"}.get(self.phase, self.phase)
        self.runner.note_boxes()
        fleeting = self.phase == "collect" and found["status"] in FINAL
        fast = self.sandbox == "qemu" and self.phase in ("kernel", "exec")
        if fast and found["status"] in FINAL and self.missed < _MISSES:
            # A guest boots in a second, and nothing holds it while others are looked at.
            self.missed += 1
            self.begin(**self.asked)
            return False
        assert fleeting or found["status"] not in FINAL, f"{self.name}: over before it was {self.phase}: {found}"
        if found["phase"] != wanted and not fleeting:
            return False
        match self.phase:
            case "sent":
                self.cut = True
                self.line.become(Line.CUT)
                return False
            case "kernel" if not any("qemu-system" in " ".join(_words(pid)[:1]) for pid in self.sandbox_processes()):
                return False
            case "exec" if self.sandbox == "container":
                return bool(self._sleeping())
            case "exec" | "kernel":
                time.sleep(0.3)
                self.freeze()
                self.missed = 0
        return True

    def freeze(self) -> None:
        """Stop the box, so that it is where it is until `thaw`, however long others take to come to theirs."""
        self.frozen = self.sandbox_processes()
        for pid in self.frozen:
            send(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let the box go on."""
        for pid in self.frozen:
            send(pid, signal.SIGCONT)
        self.frozen.clear()

    def is_there(self) -> bool:
        """Whether the job is in the phase."""
        phase = self.rig.job(self.job)["phase"]
        return bool(phase == ("spawn" if self.phase == "kernel" else self.phase))

    def begin_warm_up(self) -> None:
        """Submit a job by which the image and its root file system come into the runner's cache."""
        self.job = self.rig.submit(self.spec, "true")

    def release(self) -> None:
        """Hold the job no longer."""
        self.thaw()
        self.cut = False
        if self.phase == "exec" and self.sandbox == "container":
            self._end_sleep()
        for hold in self.held:
            hold.unlink(missing_ok=True)
        self.held.clear()
        if self.phase == "pull":
            self.rig.registry.behaviour.on_blob = None
            self.gate.set()
        self.line.become(Line.WORKS)

    def end(self) -> dict[str, Any]:
        """Wait for the job's end and return it."""
        if self.phase == "sent":
            # Its lease may have run out meanwhile; the result counts all the same.
            return self.rig.wait_for(self.job, "processed", seconds=90)
        return self.rig.wait_for(self.job, seconds=90)

    def unsent(self, *, within_s: float = 5.0) -> list[Path]:
        """Ends that are on disk, once that is none or time is up, as a runner hears last that the server has one."""
        deadline = time.monotonic() + within_s
        while True:
            found = list(self.runner.home.glob("state/runner/results/*/*.end"))
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(0.05)

    def left_behind(self, *, within_s: float = 5.0) -> dict[str, list[str]]:
        """What is on the host of this station's boxes beside the runner itself, once that is nothing or time is up."""
        deadline = time.monotonic() + within_s
        while True:
            found = self.runner.leftovers() - self.before
            processes = [line for line in found.pop("processes", []) if " runner up " not in line]
            if processes:
                found["processes"] = processes
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(0.05)

    def sandbox_processes(self) -> list[int]:
        """Process ids of all that the runner started and that is there, parents first."""
        parents = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                text = (folder / "stat").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            parents[int(folder.name)] = int(text.rpartition(")")[2].split()[1])
        found = [self.runner.pid]
        for pid in found:
            found += sorted(child for child, parent in parents.items() if parent == pid)
        return found[1:]

    def _end_sleep(self) -> None:
        """Let a benchmark in a container go on, if it is still there."""
        for pid in self._sleeping():
            send(pid, signal.SIGKILL)

    def _sleeping(self) -> list[int]:
        return [pid for pid in self.sandbox_processes() if _words(pid) == ["sleep", "600"]]

    @property
    def _tools(self) -> Path:
        return self.runner.home.with_name(f"{self.runner.home.name}.bin")

    def _new_image(self) -> tuple[str, set[str]]:
        """Push an image that nobody has pulled or built; return it, and the digests of the blobs that only it has."""
        word = f"{self.name} {self.number} {time.time_ns()}".encode()
        image = FakeImage(
            layers=[*self.rig.busybox.layers, FakeLayer.plain(tar_of({"word": word}))],
            config=self.rig.busybox.config,
            architecture=self.rig.busybox.architecture,
        )
        digest = self.rig.registry.push(image, tag=f"{self.name}-{self.number}")
        own = {str(blob) for blob in image.blobs.keys() - self.rig.busybox.blobs.keys()}
        return f"{self.rig.image.partition('@')[0]}@{digest}", own


def reach(stations: list[Station]) -> None:
    """Wait until the job of every station is in its phase."""
    deadline = time.monotonic() + REACHED_S
    waiting = stations
    while waiting := [station for station in waiting if not station.reached()]:
        logs = "\n".join(f"{station.name}\n{station.runner.log()[-4000:]}" for station in waiting)
        assert time.monotonic() < deadline, logs
        time.sleep(0.03)


def send(pid: int, number: int) -> None:
    """Send a signal to a process that may have ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _words(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace").rstrip("\0").split("\0")
    except OSError:
        return []


def _await(gate: threading.Event, held: set[str], digest: str) -> None:
    if digest in held:
        gate.wait(60)


def _which(tool: str) -> str:
    found = shutil.which(tool)
    assert found is not None, f"{tool} is not installed"
    return found
