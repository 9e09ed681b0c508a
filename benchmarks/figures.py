"""Figures of a benchmark: printed, and kept as JSON where ``METALMARK_BENCH_JSON`` names a folder.

``scripts/write-measurements`` makes tables of what is kept. A file holds the rows of one benchmark; a row that is taken
again replaces the one before it, so that a benchmark may be run in parts.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

ENOUGH_FOR_P99 = 100
"""Of fewer values the 99th percentile is the largest one, and says nothing."""
Cell = float | int | str | None


class Figures:
    """The rows of one benchmark.

    Args:
        benchmark: Its name.
        of: What the rows are of.
    """

    def __init__(self, benchmark: str, *, of: str = "sandbox") -> None:
        folder = os.environ.get("METALMARK_BENCH_JSON")
        self._file = Path(folder) / f"{benchmark}.json" if folder else None
        self._load = os.getloadavg()[0]
        self._of = of

    def row(self, sandbox: str, name: str, **cells: Cell) -> None:
        """Print and keep one row."""
        shown = "   ".join(f"{key} {_shown(cell)}" for key, cell in cells.items())
        print(f"{sandbox:<10} {name:<44} {shown}", flush=True)
        if self._file is None:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        kept = json.loads(self._file.read_text()) if self._file.exists() else {"rows": []}
        rows = [row for row in kept["rows"] if (row["sandbox"], row["name"]) != (sandbox, name)]
        rows.append({"sandbox": sandbox, "name": name, "cells": cells})
        machine = {
            "taken": datetime.now(UTC).date().isoformat(),
            "processors": os.cpu_count(),
            "kvm": Path("/dev/kvm").exists(),
            "python": platform.python_version(),
            "load": round(self._load, 1),
        }
        self._file.write_text(json.dumps({"machine": machine, "of": self._of, "rows": rows}, indent=1) + "\n")

    def series(self, sandbox: str, name: str, seconds: Sequence[float]) -> None:
        """Print and keep a series in milliseconds: how many, median, 99th percentile, largest."""
        if not seconds:
            return
        ordered = sorted(seconds)
        p99 = ordered[int(len(ordered) * 0.99)] * 1e3 if len(ordered) >= ENOUGH_FOR_P99 else None
        median = statistics.median(ordered) * 1e3
        least, largest = round(ordered[0] * 1e3, 1), round(ordered[-1] * 1e3, 1)
        self.row(
            sandbox,
            name,
            n=len(ordered),
            least=least,
            median=round(median, 1),
            p99=None if p99 is None else round(p99, 1),
            largest=largest,
        )


def _shown(cell: Cell) -> str:
    if cell is None:
        return "–"
    return f"{cell:8.1f}" if isinstance(cell, float) else f"{cell:>4}"
