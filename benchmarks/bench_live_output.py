#!/usr/bin/env python3
"""What live output costs: wall time of a benchmark on a runner that forwards it, beside `--live off` locally.

The benchmark computes for about two seconds; one prints nothing meanwhile, one a line every 10 ms, one floods 20 MB. In
an emulated machine they do a tenth of that.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from figures import Figures
from remote_rig import WarmRunner, arguments, warm_runner

COMMAND = str(Path(sys.executable).with_name("metalmark"))


def scripts(share: int) -> dict[str, str]:
    """Return the benchmarks by name, a part of each."""
    count = f"i=0; while [ $i -lt {300_000 // share} ]; do i=$((i+1)); done"
    lines, bytes_ = 200 // share, 20_000_000 // share
    return {
        "silent": count,
        "a line at times": f"n=0; while [ $n -lt {lines} ]; do n=$((n+1)); echo line $n; "
        "i=0; while [ $i -lt 1500 ]; do i=$((i+1)); done; done",
        "a flood": f"{count}; yes 0123456789012345678 | head -c {bytes_}",
    }


def remote_s(warm: WarmRunner, script: str) -> float:
    """Wall time of the benchmark as a job."""
    job = warm.rig.submit(warm.spec, "sh", "-c", script)
    warm.wait_quietly_for(job)
    done = warm.rig.job(job)
    (result,) = done["output"]["results"]
    wall_s: float = result["wall_s"]
    return wall_s


def local_s(warm: WarmRunner, script: str) -> float:
    """The same without anybody who looks."""
    environment = {**os.environ, "METALMARK_HOME": str(warm.process.home)}
    command = [COMMAND, "runner", "run", warm.rig.image, "--sandbox", warm.sandbox, "--json", "--live", "off"]
    hardware = ["--memory", "256M", "--disk", "128M", "--vcpus", "1"]
    done = subprocess.run(
        [*command, *hardware, "--", "sh", "-c", script], env=environment, capture_output=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(done.stderr.decode())
    wall_s: float = json.loads(done.stdout)["iterations"][0]["wall_s"]
    return wall_s


def main() -> None:
    options = arguments(__doc__)
    figures = Figures("live_output")
    for sandbox in options.sandbox:
        rounds = options.rounds or (1 if options.quick else 12)
        with warm_runner(sandbox) as warm:
            emulated = sandbox == "qemu" and not Path("/dev/kvm").exists()
            for name, script in list(scripts(10 if emulated else 1).items())[-1 if options.quick else 0 :]:
                # In turns: what else the machine does changes over minutes.
                pairs = [(remote_s(warm, script), local_s(warm, script)) for _ in range(rounds)]
                live, off = (statistics.median(column) for column in zip(*pairs, strict=True))
                cost = 100 * (statistics.median(one / other for one, other in pairs) - 1)
                cells = {"live_ms": round(live * 1e3, 1), "off_ms": round(off * 1e3, 1), "cost_percent": round(cost, 1)}
                figures.row(sandbox, name, n=rounds, **cells)


if __name__ == "__main__":
    main()
