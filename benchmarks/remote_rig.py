"""A server and a runner for the benchmarks of remote jobs: a warm busybox, and how long things took."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from metalmark.testing.rig import Rig, standing_rig
from metalmark.testing.runner_process import RunnerProcess


def arguments(description: str | None) -> argparse.Namespace:
    """Read the options that all of these benchmarks have; ends the program where they cannot run."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a size of seconds")
    parser.add_argument("--rounds", type=int, metavar="N", help="measure so often")
    parser.add_argument("--sandbox", action="append", choices=["container", "qemu"])
    found = parser.parse_args()
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


def kernels() -> Path | None:
    """Return the folder of guest kernels, or None where none is set up."""
    homes = [os.environ.get("METALMARK_HOME"), str(Path(__file__).parents[1] / ".cache/home")]
    places = [Path(home) / "state/kernels" for home in homes if home] + [Path("/var/lib/metalmark/kernels")]
    return next((place for place in places if any(place.glob("*/kernel.json"))), None)


@contextmanager
def warm_runner(sandbox: str, *, options: Sequence[str] = ()) -> Iterator[WarmRunner]:
    """Start a server on SQLite and one runner, and let it execute one job."""
    with (
        tempfile.TemporaryDirectory(prefix="metalmark-bench-") as folder,
        standing_rig(Path(folder)) as rig,
    ):
        spec = rig.spec("bench", sandbox)
        process = rig.runner("rig", spec, options=["--allow-emulation", *options], kernels=kernels())
        process.start()
        done = rig.wait_for(rig.submit(spec, "true"), seconds=120)
        if done["status"] != "processed":
            raise SystemExit(f"{done}\n{process.log()}")
        yield WarmRunner(rig=rig, process=process, spec=spec, sandbox=sandbox)


def told(name: str, seconds: Sequence[float]) -> None:
    """Print a series in milliseconds: how many, median, p99, largest."""
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    print(
        f"{name:<44} n={len(ordered):<4} p50 {statistics.median(ordered) * 1e3:8.1f} ms"
        f"   p99 {p99 * 1e3:8.1f} ms   max {ordered[-1] * 1e3:8.1f} ms"
    )
