#!/usr/bin/env python3
"""From the request that cancels a job to the moment at which nothing of its box is left. Aim: p99 under 1 s.

Canceled as soon as the job is seen in a phase, and then at random within two seconds of its run. The box is gone when
no process that the runner started is there any more, and none of its folders and mounts.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import defaultdict
from pathlib import Path

from remote_rig import WarmRunner, arguments, told, warm_runner

from metalmark.testing.leftover_listing import list_leftovers

STUBBORN = "trap '' TERM INT; echo begun; while :; do sleep 0.1; done"


def descendants(pid: int) -> list[int]:
    """Processes below one, but zombies."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if words[0] != "Z":
            parents[int(folder.name)] = int(words[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def once(warm: WarmRunner, phase: str) -> tuple[str, float]:
    """Cancel one job; return the phase in which that was, and how long it took."""
    rig = warm.rig
    fields: dict[str, object] = {}
    script = STUBBORN
    if phase == "collect":
        script = "head -c 20000000 /dev/zero > /work/big; echo begun"
        fields["file_paths"] = ["/work/big"]
    job = rig.submit(warm.spec, "sh", "-c", script, **fields)
    # A phase may be over before it is seen; then the job is canceled in the next one.
    wanted = {"boot": ("spawn", "exec", "collect"), "exec": ("exec",), "collect": ("collect",)}[phase]
    while (found := rig.job(job))["phase"] not in wanted and found["status"] in ("pending", "claimed", "running"):
        time.sleep(0.002)
    if phase != "collect":
        time.sleep(random.uniform(0.0, {"boot": 0.05 if warm.sandbox == "container" else 2.0, "exec": 1.0}[phase]))
    now = rig.job(job)["phase"] or "over"
    began = time.monotonic()
    rig.cancel(job)
    while descendants(warm.process.pid) or boxes(warm.process.home):
        time.sleep(0.002)
    took = time.monotonic() - began
    rig.wait_for(job, seconds=30)
    return now, took


def boxes(home: Path) -> list[Path]:
    return [*(home / "run/boxes").glob("*"), *(home / "cache/boxes").glob("*")]


def main() -> None:
    options = arguments(__doc__)
    for sandbox in options.sandbox or ("container", "qemu"):
        rounds = options.rounds or (2 if options.quick else {"container": 100, "qemu": 40}[sandbox])
        series: defaultdict[str, list[float]] = defaultdict(list)
        with warm_runner(sandbox) as warm:
            before = list_leftovers(warm.process.home)
            for phase in ("boot", "exec", "collect"):
                for _ in range(rounds):
                    now, took = once(warm, phase)
                    series[now].append(took)
            left = list_leftovers(warm.process.home) - before
            os.kill(warm.process.pid, signal.SIGTERM)
            warm.process.wait()
        print(f"# {sandbox}; left behind: {left or 'nothing'}")
        for name, found in series.items():
            told(f"canceled in {name} -> nothing of the box left", found)


if __name__ == "__main__":
    main()
