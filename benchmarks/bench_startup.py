#!/usr/bin/env python3
"""How long the command takes to answer without working, as multiples of ``python3 -c pass`` (the floor)."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMAND = Path(sys.executable).with_name("metalmark")
CASES = {
    "python3 -c pass": [sys.executable, "-c", "pass"],
    "metalmark --version": [str(COMMAND), "--version"],
    "metalmark runner run --help": [str(COMMAND), "runner", "run", "--help"],
    "metalmark host --help (through the parser)": [str(COMMAND), "host", "--help"],
}
AIMS = {"metalmark --version": 10, "metalmark runner run --help": 20}


def once(argv: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few rounds")
    rounds = 3 if parser.parse_args().quick else 31
    series: dict[str, list[float]] = {name: [] for name in CASES}
    for argv in CASES.values():
        once(argv)
    # Interleaved, so that a disturbance of the machine meets all of them.
    for _ in range(rounds):
        for name, argv in CASES.items():
            series[name].append(once(argv))
    floor = statistics.median(series["python3 -c pass"])
    print(f"{'command':45} {'median':>9} {'least':>9} {'x floor':>8}  aim")
    for name, seconds in series.items():
        median = statistics.median(seconds)
        aim = f"under {AIMS[name]}" if name in AIMS else ""
        print(f"{name:45} {median * 1e3:6.1f} ms {min(seconds) * 1e3:6.1f} ms {median / floor:8.1f}  {aim}".rstrip())


if __name__ == "__main__":
    main()
