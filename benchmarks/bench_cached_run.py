#!/usr/bin/env python3
"""Phases pull and rootfs of a second run by digest: everything is in the cache. Aim: together under 20 ms.

Beside it the floor: opening the cached files and hashing nothing. Needs root (the sandbox is a container).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from metalmark.model import ImageConfig, Platform
from metalmark.oci import PackRequest, PackSource, pack
from metalmark.sandbox import selftest_program

COMMAND = Path(sys.executable).with_name("metalmark")


def make_layout(folder: Path) -> tuple[Path, str]:
    """Make an image of about 20 MB, and return its layout and digest."""
    content = folder / "content"
    content.mkdir()
    for number in range(200):
        (content / f"file-{number}").write_bytes(os.urandom(100_000))
    program = selftest_program(os.uname().machine)
    request = PackRequest(
        sources=(PackSource(path=content), PackSource(path=program, target="/t")),
        config=ImageConfig(cmd=("/t", "exit", "0")),
        platform=Platform.of_machine(os.uname().machine),
    )
    packed = pack(request, folder / "layout", archive=False)
    return packed.path, str(packed.digest)


def phases(home: Path, image: str) -> tuple[dict[str, float], float]:
    """Run it once; return seconds of the run's own phases, and of the whole command."""
    began = time.perf_counter()
    done = subprocess.run(
        [COMMAND, "runner", "run", image, "--json", "--sandbox", "container"],
        env={**os.environ, "METALMARK_HOME": str(home)}, capture_output=True, check=False,
    )  # fmt: skip
    took = time.perf_counter() - began
    if done.returncode != 0:
        raise SystemExit(done.stderr.decode())
    return {span["phase"]: span["duration_s"] for span in json.loads(done.stdout)["phases"]}, took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few rounds")
    rounds = 3 if parser.parse_args().quick else 15
    if os.geteuid() != 0:
        print("skipped: it needs root, for the sandbox is a container")
        return
    with tempfile.TemporaryDirectory(prefix="metalmark-bench-") as name:
        home, (layout, digest) = Path(name) / "home", make_layout(Path(name))
        image = f"oci:{layout}@{digest}"
        first, first_took = phases(home, image)
        print(f"{'run':22} {'pull':>10} {'rootfs':>10} {'together':>10} {'whole command':>14}")
        show("first", [first], [first_took])
        runs = [phases(home, image) for _ in range(rounds)]
        show(f"by digest, {rounds} runs", [run for run, _ in runs], [took for _, took in runs])


def show(title: str, runs: list[dict[str, float]], took: list[float]) -> None:
    pull, rootfs = (statistics.median(run[phase] for run in runs) for phase in ("pull", "rootfs"))
    both = statistics.median(run["pull"] + run["rootfs"] for run in runs)
    whole = statistics.median(took)
    print(f"{title:22} {pull * 1e3:7.2f} ms {rootfs * 1e3:7.2f} ms {both * 1e3:7.2f} ms {whole * 1e3:11.0f} ms")


if __name__ == "__main__":
    main()
