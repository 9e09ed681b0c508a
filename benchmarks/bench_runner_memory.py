#!/usr/bin/env python3
"""Resident memory of a runner over a thousand jobs. Aim: flat."""

from __future__ import annotations

import time
from pathlib import Path

from figures import Figures
from remote_rig import arguments, warm_runner


def resident_mib(pid: int) -> float:
    """Resident memory of a process, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return round(int(line.split()[1]) / 1024, 1)
    raise ProcessLookupError(pid)


def main() -> None:
    options = arguments(__doc__)
    count = options.rounds or (10 if options.quick else 1000)
    step = 5 if options.quick else max(1, count // 10)
    figures = Figures("runner_memory")
    with warm_runner("container") as warm:
        pid = warm.process.pid
        done = 0
        while True:
            files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
            figures.row("container", f"after {done + 1}", resident_MiB=resident_mib(pid), open_files=files)
            if done >= count:
                break
            began = time.monotonic()
            jobs = [warm.rig.submit(warm.spec, "sh", "-c", "echo output; seq 1 1000") for _ in range(step)]
            warm.wait_quietly_for(jobs[-1])
            done += step
            print(f"# {step / (time.monotonic() - began):.1f} jobs/s, their submission included")


if __name__ == "__main__":
    main()
