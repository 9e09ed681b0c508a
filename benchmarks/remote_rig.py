"""A server and a runner for the benchmarks of remote jobs: a warm busybox, and what they have in common."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from metalmark.testing.rig import Rig, standing_rig
from metalmark.testing.runner_process import RunnerProcess

SANDBOXES = ("container", "qemu")


def arguments(description: str | None, *, phases: Sequence[str] = ()) -> argparse.Namespace:
    """Read the options that all of these benchmarks have; ends the program where they cannot run."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a size of seconds, in containers")
    parser.add_argument("--rounds", type=int, metavar="N", help="measure so often")
    parser.add_argument("--sandbox", action="append", choices=SANDBOXES)
    if phases:
        parser.add_argument("--phase", action="append", choices=phases)
    found = parser.parse_args()
    # A machine that emulates boots for seconds, and finds out that it can for more.
    found.sandbox = found.sandbox or (["container"] if found.quick else list(SANDBOXES))
    if os.geteuid() != 0:
        print("skipped: it needs root, for mounts and cgroups")
        sys.exit(0)
    return found


@dataclass(frozen=True, kw_only=True)
class WarmRunner:
    """A runner that has executed a job: image and root file system are in its cache."""

    rig: Rig
    process: RunnerProcess
    spec: str
    sandbox: str

    def ends(self) -> list[float]:
        """Return when jobs ended, in seconds since the epoch, as the runner's log has it."""
        lines = [json.loads(line) for line in self.process.log().splitlines() if line.startswith("{")]
        return [datetime.fromisoformat(line["timestamp"]).timestamp() for line in lines if line["event"] == "job ended"]

    def wait_quietly_for(self, job: str) -> None:
        """Wait until a job is processed. Whoever asked all the time would take a CPU from those who work."""
        with self.rig.follow(job):
            pass
        self.rig.wait_for(job, "processed", seconds=600)


def kernels() -> Path | None:
    """Return the folder of guest kernels, or None where none is set up."""
    homes = [os.environ.get("METALMARK_HOME"), str(Path(__file__).parents[1] / ".cache/home")]
    places = [Path(home) / "state/kernels" for home in homes if home] + [Path("/var/lib/metalmark/kernels")]
    return next((place for place in places if any(place.glob("*/kernel.json"))), None)


@contextmanager
def warm_runner(sandbox: str, *, environment: Mapping[str, str] | None = None) -> Iterator[WarmRunner]:
    """Start a server on SQLite and one runner, and let it execute one job."""
    with (
        tempfile.TemporaryDirectory(prefix="metalmark-bench-") as folder,
        standing_rig(Path(folder)) as rig,
    ):
        spec = rig.spec("bench", sandbox)
        guests = kernels() if sandbox == "qemu" else None
        process = rig.runner(
            "rig", spec, options=["--allow-emulation"], kernels=guests, environment=dict(environment or {})
        )
        process.start()
        done = rig.wait_for(rig.submit(spec, "true"), seconds=120)
        if done["status"] != "processed":
            raise SystemExit(f"{done}\n{process.log()}")
        yield WarmRunner(rig=rig, process=process, spec=spec, sandbox=sandbox)
