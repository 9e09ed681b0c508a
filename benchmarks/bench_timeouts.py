#!/usr/bin/env python3
"""How much later than its time limit a benchmark ends, by the clock of its box. Aim: at most 250 ms late, never early.

One that ends by SIGTERM, and one that has to be killed after the grace period, which is taken off. All in iterations of
one job, the time limit a second.
"""

from __future__ import annotations

from figures import Figures
from remote_rig import arguments, warm_runner

LIMIT_S = 1.0
GRACE_S = 1.0
SCRIPTS = {
    "ends by SIGTERM": ("sleep 60", 0.0),
    "has to be killed": ("trap '' TERM; while :; do sleep 0.05; done", GRACE_S),
}
ROUNDS = {"container": (100, 50), "qemu": (30, 15)}


def main() -> None:
    options = arguments(__doc__)
    figures = Figures("timeouts")
    for sandbox in options.sandbox:
        with warm_runner(sandbox) as warm:
            for (name, (script, grace_s)), usual in zip(SCRIPTS.items(), ROUNDS[sandbox], strict=True):
                rounds = options.rounds or (2 if options.quick else usual)
                job = warm.rig.submit(
                    warm.spec, "sh", "-c", script, timeout=int(LIMIT_S), iter=rounds, allow_failure=True
                )
                with warm.rig.follow(job):
                    pass
                results = warm.rig.wait_for(job, seconds=900)["output"]["results"]
                assert len(results) == rounds
                figures.series(sandbox, name, [result["wall_s"] - LIMIT_S - grace_s for result in results])


if __name__ == "__main__":
    main()
