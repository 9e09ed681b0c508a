#!/usr/bin/env python3
"""From a job's submission to the first byte of its output at who follows it, warm image, with the parts of that time.

Server, runner and follower are processes of this machine, connected over loopback. Beside it the floor: `runner run` of
the same box has to spawn it too.
"""

from __future__ import annotations

import time
from collections import defaultdict

from figures import Figures
from remote_rig import WarmRunner, arguments, warm_runner

ROUNDS = {"container": 200, "qemu": 40}


def once(warm: WarmRunner) -> dict[str, float]:
    """Run one job and return its parts in seconds."""
    rig = warm.rig
    began = time.monotonic()
    job = rig.submit(warm.spec, "sh", "-c", "echo first; sleep 0.1; echo last")
    submitted = time.monotonic()
    with rig.follow(job) as followed:
        first = followed.wait_for("first")
    done = rig.wait_for(job)
    (result,) = done["output"]["results"]
    phases = result["phases"]
    box_s = phases["spawn"] + phases["kernel"] + phases["agent"]
    seen = {event["phase"]: at for at, kind, event in followed.events if kind == "phase"}
    return {
        "submission to first output": first - began,
        "of that: the request of the submission": submitted - began,
        "of that: spawn, kernel and agent of the box": box_s,
        "of that: all else": first - submitted - box_s,
        "phase exec seen to first output": first - seen["exec"],
    }


def main() -> None:
    options = arguments(__doc__)
    figures = Figures("remote_latency")
    for sandbox in options.sandbox:
        rounds = options.rounds or (5 if options.quick else ROUNDS[sandbox])
        parts: defaultdict[str, list[float]] = defaultdict(list)
        with warm_runner(sandbox) as warm:
            for _ in range(rounds):
                for name, seconds in once(warm).items():
                    parts[name].append(seconds)
        for name, series in parts.items():
            figures.series(sandbox, name, series)


if __name__ == "__main__":
    main()
