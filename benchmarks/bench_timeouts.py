#!/usr/bin/env python3
"""How long a command with a time-out of one and of three seconds really runs. Aim: at most 250 ms late, never early.

One that ends by SIGTERM, and one that has to be killed after the grace period, which is taken off.
"""

from __future__ import annotations

from remote_rig import arguments, told, warm_runner

GRACE_S = 1.0
SCRIPTS = {"ends by SIGTERM": "sleep 60", "has to be killed": "trap '' TERM; while :; do sleep 0.05; done"}


def main() -> None:
    options = arguments(__doc__)
    for sandbox in options.sandbox or ("container", "qemu"):
        rounds = options.rounds or (2 if options.quick else 20)
        with warm_runner(sandbox) as warm:
            print(f"# {sandbox}")
            for timeout_s in (1, 3):
                for name, script in SCRIPTS.items():
                    late = []
                    for _ in range(rounds):
                        job = warm.rig.submit(warm.spec, "sh", "-c", script, timeout=timeout_s)
                        (result,) = warm.rig.wait_for(job, seconds=60)["output"]["results"]
                        grace_s = GRACE_S if "killed" in name else 0.0
                        late.append(result["wall_s"] - timeout_s - grace_s)
                    told(f"{timeout_s} s, {name}: late by", late)


if __name__ == "__main__":
    main()
