#!/usr/bin/env python3
"""From the request that cancels a job to the moment at which nothing of it is left. Aim: p99 under 1 s in every phase.

``pull`` waits for a layer that does not come, ``rootfs`` and a container's ``spawn`` for a tool that does not begin. A
microVM is canceled at a random moment of its boot, told by how long boots took before. In ``exec`` the benchmark
ignores SIGTERM, and in ``collect`` 20 MB are on their way. Nothing is left when no process that the runner started is
there, none of its boxes' folders, and, before there is a box, when the runner says that the job ended.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path

from figures import Figures
from remote_rig import WarmRunner, arguments, warm_runner

from metalmark.testing.images import FakeImage, FakeLayer, tar_of

PHASES = ("pull", "rootfs", "spawn", "kernel", "agent", "exec", "collect")
OF_A_BOX = {"container": ("spawn", "exec", "collect"), "qemu": ("spawn", "kernel", "agent", "exec", "collect")}
ROUNDS = {"container": 100, "qemu": 30}
STUBBORN = "trap '' TERM INT; echo begun; while :; do sleep 0.1; done"
BIG = "head -c 20000000 /dev/zero > /work/big; echo begun"
TOOLS = {"rootfs": "mksquashfs", "spawn": "runc"}
_TOOL = """#!/bin/sh
# exec: nothing of this script stays behind in its place.
while [ -e {hold} ]; do [ -e {hold}.one ] && rm {hold} && exec /bin/sleep 60; /bin/sleep 0.02; done
exec {real} "$@"
"""


@dataclass(kw_only=True)
class Canceled:
    """One kind of sandbox, whose jobs are canceled."""

    warm: WarmRunner
    tools: Path
    boot_s: dict[str, tuple[float, float]]
    """From when until when a boot is in a phase, from its beginning on."""
    number: int = 0

    def once(self, phase: str) -> tuple[str, float]:
        """Cancel one job; return the phase in which that was, and how long it took."""
        rig, told_as = self.warm.rig, {"kernel": "spawn", "agent": "spawn"}.get(phase, phase)
        ended = len(self.warm.ends())
        with self._submitted(phase) as (job, release):
            while (found := rig.job(job))["phase"] != told_as and found["status"] in ("pending", "claimed", "running"):
                time.sleep(0.01)
            if phase in self.boot_s:
                first, last = self.boot_s[phase]
                # It is told 0.1 s after it began.
                time.sleep(max(0.0, random.uniform(first, last) - 0.1))
            elif phase != "collect":
                time.sleep(random.uniform(0.0, 0.3))
            if phase in self.boot_s:
                now = phase if rig.job(job)["phase"] == told_as else "exec"
            else:
                now = str(rig.job(job)["phase"] or "over")
            self.warm.process.note_boxes()
            release()
            began = time.monotonic()
            rig.cancel(job)
            if phase in ("pull", "rootfs"):
                while len(self.warm.ends()) == ended:
                    time.sleep(0.005)
            while boxes(self.warm.process.home) or children(self.warm.process.pid):
                time.sleep(0.002)
            took = time.monotonic() - began
        rig.wait_for(job, seconds=30)
        return now, took

    @contextmanager
    def _submitted(self, phase: str) -> Iterator[tuple[str, Callable[[], None]]]:
        """Submit a job that is held in a phase; the function lets the runner's tools alone again."""
        rig, registry = self.warm.rig, self.warm.rig.registry.behaviour
        fields: dict[str, object] = {}
        image, gate, hold = rig.image, threading.Event(), self.tools / f"hold-{phase}"
        if phase in ("pull", "rootfs"):
            image, own = self._new_image()
            if phase == "pull":
                registry.on_blob = partial(_await, gate, own)
        if phase == "rootfs" or (phase == "spawn" and self.warm.sandbox == "container"):
            hold.touch()
        if phase == "collect":
            fields["file_paths"] = ["/work/big"]
        try:
            job = rig.submit(self.warm.spec, "sh", "-c", BIG if phase == "collect" else STUBBORN, image=image, **fields)
            # The tool that is held goes on waiting; what is needed for the way out is the same program.
            yield job, lambda: hold.with_suffix(".one").touch() if hold.exists() else None
        finally:
            registry.on_blob = None
            gate.set()
            for path in (hold, hold.with_suffix(".one")):
                path.unlink(missing_ok=True)

    def _new_image(self) -> tuple[str, set[str]]:
        """Push an image that nobody has pulled or built; return it, and the digests of the blobs that only it has."""
        rig = self.warm.rig
        self.number += 1
        image = FakeImage(
            layers=[*rig.busybox.layers, FakeLayer.plain(tar_of({"word": f"{time.time_ns()}".encode()}))],
            config=rig.busybox.config,
            architecture=rig.busybox.architecture,
        )
        digest = rig.registry.push(image, tag=f"canceled-{self.number}")
        own = {str(blob) for blob in image.blobs.keys() - rig.busybox.blobs.keys()}
        return f"{rig.image.partition('@')[0]}@{digest}", own


def _await(gate: threading.Event, held: set[str], digest: str) -> None:
    if digest in held:
        gate.wait(60)


def children(pid: int) -> list[int]:
    """Processes below one, but zombies."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(word) for word in path.read_text(encoding="ascii").split()]
        except OSError:
            continue
    return [child for child in found if not _is_zombie(child)]


def _is_zombie(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    return text.rpartition(")")[2].split()[0] == "Z"


def boxes(home: Path) -> list[Path]:
    return [*(home / "run/boxes").glob("*"), *(home / "cache/boxes").glob("*")]


def boot_of(warm: WarmRunner) -> dict[str, tuple[float, float]]:
    """Return when a microVM's boot is in which phase, in seconds from its beginning; nothing of a container."""
    if warm.sandbox == "container":
        return {}
    done = warm.rig.wait_for(warm.rig.submit(warm.spec, "true", iter=3), "processed", seconds=120)
    results = done["output"]["results"]
    names = ("spawn", "kernel", "agent")
    lengths = [min(result["phases"][name] for result in results) for name in names]
    ends = list(accumulate(lengths))
    return {name: (end - length, end) for name, end, length in zip(names, ends, lengths, strict=True)}


@contextmanager
def standing(sandbox: str) -> Iterator[Canceled]:
    """Start a server and a runner whose tools can be held."""
    with tempfile.TemporaryDirectory(prefix="metalmark-tools-") as folder:
        tools = Path(folder)
        tools.chmod(0o755)
        for phase, tool in TOOLS.items():
            real = shutil.which(tool)
            if real is None:
                raise SystemExit(f"{tool} is not installed")
            (tools / tool).write_text(_TOOL.format(hold=tools / f"hold-{phase}", real=real))
            (tools / tool).chmod(0o755)
        path = {"PATH": f"{tools}:{os.environ['PATH']}"}
        with warm_runner(sandbox, environment=path) as warm:
            yield Canceled(warm=warm, tools=tools, boot_s=boot_of(warm))


def main() -> None:
    options = arguments(__doc__, phases=PHASES)
    figures = Figures("cancel")
    for sandbox in options.sandbox:
        usual = OF_A_BOX[sandbox] if sandbox == "qemu" else (*PHASES[:2], *OF_A_BOX[sandbox])
        rounds = options.rounds or (1 if options.quick else ROUNDS[sandbox])
        series: defaultdict[str, list[float]] = defaultdict(list)
        with standing(sandbox) as canceled:
            before = canceled.warm.process.leftovers()
            for phase in options.phase or usual:
                for _ in range(rounds):
                    now, took = canceled.once(phase)
                    series[now].append(took)
            canceled.warm.process.end()
            left = canceled.warm.process.leftovers() - before
        print(f"# {sandbox}; left behind: {left or 'nothing'}")
        for name, found in series.items():
            figures.series(sandbox, name, found)


if __name__ == "__main__":
    main()
