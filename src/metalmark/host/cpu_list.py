"""Lists of CPUs as the kernel and ``taskset`` write them: ``0-3,8,10-11``."""

from __future__ import annotations

import re
from collections.abc import Iterable

from metalmark.model import InputError

_PART = re.compile(r"([0-9]{1,7})(?:-([0-9]{1,7}))?")
MAX_CPU = 65_535
"""Largest number accepted; the kernel's own bound (CONFIG_NR_CPUS) is 8192 today."""


def parse_cpu_list(text: str, *, field: str) -> tuple[int, ...]:
    """Read a list of CPU numbers, such as ``2-5,7``, and return them sorted without repetition.

    Args:
        text: Numbers and ranges (first-last, both included) with commas between; blanks around a part are fine.
        field: Where it came from, for the error: a flag or a file.

    Raises:
        InputError: Empty, not numbers and ranges, a range that runs backwards, or a number beyond `MAX_CPU`.
    """
    found: set[int] = set()
    for part in text.strip().split(","):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise InputError(field, text, f"{part.strip()!r} is not a CPU number or a range", hint="write 2-5,7")
        first = int(match[1])
        last = int(match[2]) if match[2] else first
        if last < first:
            raise InputError(field, text, f"the range {part.strip()} runs backwards", hint=f"write {last}-{first}")
        if last > MAX_CPU:
            raise InputError(field, text, f"there is no CPU {last}", hint=f"numbers go up to {MAX_CPU}")
        found.update(range(first, last + 1))
    return tuple(sorted(found))


def format_cpu_list(cpus: Iterable[int]) -> str:
    """Return CPU numbers in the shortest list form, runs of two and more as ranges: ``0-1,4``; empty for none."""
    parts: list[str] = []
    run: list[int] = []
    for cpu in sorted(set(cpus)):
        if run and cpu == run[-1] + 1:
            run.append(cpu)
            continue
        if run:
            parts.append(_format_run(run))
        run = [cpu]
    if run:
        parts.append(_format_run(run))
    return ",".join(parts)


def _format_run(run: list[int]) -> str:
    return str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}"
