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

from remote_rig import WarmRunner, arguments, warm_runner

COMMAND = str(Path(sys.executable).with_name("metalmark"))


def remote_s(warm: WarmRunner, count: int) -> float:
    """Seconds a job, from the first claim to the last end."""
    jobs = [warm.rig.submit(warm.spec, "true") for _ in range(count)]
    warm.process.start()
    warm.rig.wait_for(jobs[0], "claimed", "running", "completed", "processed", seconds=60)
    began = time.monotonic()
    for job in jobs:
        warm.rig.wait_for(job, "processed", seconds=600)
    return (time.monotonic() - began) / count


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
    for sandbox in options.sandbox or ("container", "qemu"):
        count = options.rounds or (5 if options.quick else {"container": 100, "qemu": 20}[sandbox])
        with warm_runner(sandbox) as warm:
            warm.process.stop()
            remote = remote_s(warm, count)
            warm.process.stop()
            local = local_s(warm, count)
        print(
            f"{sandbox:<10} n={count:<4} a job {remote * 1e3:8.1f} ms   iteration of runner run {local * 1e3:8.1f} ms"
            f"   overhead {(remote - local) * 1e3:8.1f} ms"
        )


if __name__ == "__main__":
    main()
