#!/usr/bin/env python3
"""Resident memory of a runner over a thousand jobs. Aim: flat."""

from __future__ import annotations

import time
from pathlib import Path

from remote_rig import arguments, warm_runner


def resident_mib(pid: int) -> float:
    """Resident memory of a process, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)


def main() -> None:
    options = arguments(__doc__)
    count, step = (20, 10) if options.quick else (1000, 100)
    with warm_runner("container") as warm:
        pid = warm.process.pid
        print(f"{'jobs':>6}  {'resident MiB':>12}  {'open files':>10}  {'jobs/s':>7}")
        print(f"{1:>6}  {resident_mib(pid):>12.1f}  {len(list(Path(f'/proc/{pid}/fd').iterdir())):>10}")
        for done in range(step, count + 1, step):
            began = time.monotonic()
            jobs = [warm.rig.submit(warm.spec, "sh", "-c", "echo output; seq 1 1000") for _ in range(step)]
            for job in jobs:
                warm.rig.wait_for(job, "processed", seconds=600)
            rate = step / (time.monotonic() - began)
            files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
            print(f"{done:>6}  {resident_mib(pid):>12.1f}  {files:>10}  {rate:>7.1f}")


if __name__ == "__main__":
    main()
