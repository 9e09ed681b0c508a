#!/usr/bin/env python3
"""A hundred jobs back to back over one runner, beside `runner run` of the same image with as many iterations.

The overhead of a job is what it takes beyond an iteration: claim, phases, live output, the end on disk, the
acknowledgement, the next claim. Aim: under 50 ms.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from figures import Figures
from remote_rig import WarmRunner, arguments, warm_runner

COMMAND = str(Path(sys.executable).with_name("metalmark"))
ROUNDS = {"container": 100, "qemu": 20}


def remote_s(warm: WarmRunner, count: int) -> float:
    """Seconds a job, from the end of the first to the end of the last."""
    jobs = [warm.rig.submit(warm.spec, "true") for _ in range(count + 1)]
    before = len(warm.ends())
    warm.process.start()
    warm.wait_quietly_for(jobs[-1])
    ended = warm.ends()[before:]
    assert len(ended) == len(jobs)
    return (ended[-1] - ended[0]) / count


def local_s(warm: WarmRunner, count: int) -> float:
    """Seconds an iteration of `runner run`: what more of them take than one."""
    return (_wall_s(warm, count + 1) - _wall_s(warm, 1)) / count


def _wall_s(warm: WarmRunner, count: int) -> float:
    environment = {**os.environ, "METALMARK_HOME": str(warm.process.home)}
    command = [COMMAND, "runner", "run", warm.rig.image, "--sandbox", warm.sandbox, "--iter", str(count), "--json"]
    hardware = ["--memory", "256M", "--disk", "128M", "--vcpus", "1"]
    began = time.monotonic()
    done = subprocess.run([*command, *hardware, "--", "true"], env=environment, capture_output=True, check=False)
    if done.returncode != 0:
        raise SystemExit(done.stderr.decode())
    return time.monotonic() - began


def main() -> None:
    options = arguments(__doc__)
    figures = Figures("back_to_back")
    for sandbox in options.sandbox:
        count = options.rounds or (5 if options.quick else ROUNDS[sandbox])
        with warm_runner(sandbox) as warm:
            warm.process.stop()
            # Before and after: what else the machine does changes over minutes.
            local = [local_s(warm, count // 2 or 1)]
            remote = remote_s(warm, count)
            warm.process.stop()
            local.append(local_s(warm, count // 2 or 1))
        iteration = sum(local) / 2
        milliseconds = {"a_job": remote, "an_iteration": iteration, "overhead": remote - iteration}
        figures.row(sandbox, "true", n=count, **{name: round(value * 1e3, 1) for name, value in milliseconds.items()})


if __name__ == "__main__":
    main()
