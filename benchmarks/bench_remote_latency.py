#!/usr/bin/env python3
"""From a job's submission to the first byte of its output at who follows it, warm image, with the parts of that time.

Server, runner and follower are processes of this machine, connected over loopback. Beside it the floor: `runner run` of
the same box has to spawn it too.
"""

from __future__ import annotations

import time
from collections import defaultdict

from remote_rig import WarmRunner, arguments, told, warm_runner


def once(warm: WarmRunner) -> dict[str, float]:
    """Run one job and return its parts in seconds."""
    rig = warm.rig
    began = time.monotonic()
    job = rig.submit(warm.spec, "sh", "-c", "echo first; sleep 0.3; echo last")
    submitted = time.monotonic()
    with rig.follow(job) as followed:
        first = followed.wait_for("first")
    done = rig.wait_for(job)
    (result,) = done["output"]["results"]
    phases = result["phases"]
    box_s = phases["spawn"] + phases["kernel"] + phases["agent"]
    seen = {event["phase"]: at for at, kind, event in followed.events if kind == "phase"}
    return {
        "submit -> first output": first - began,
        "  the request of the submission": submitted - began,
        "  spawn, kernel and agent of the box": box_s,
        "  all else": first - submitted - box_s,
        "  (phase exec seen -> first output)": first - seen["exec"],
    }


def main() -> None:
    options = arguments(__doc__)
    for sandbox in options.sandbox or ("container", "qemu"):
        rounds = options.rounds or (5 if options.quick else {"container": 200, "qemu": 30}[sandbox])
        parts: defaultdict[str, list[float]] = defaultdict(list)
        with warm_runner(sandbox) as warm:
            for _ in range(rounds):
                for name, seconds in once(warm).items():
                    parts[name].append(seconds)
        print(f"# {sandbox}")
        for name, series in parts.items():
            told(name, series)


if __name__ == "__main__":
    main()
