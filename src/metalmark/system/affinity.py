"""The CPUs that this thread runs on."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def bound_to(cpus: Collection[int]) -> Iterator[None]:
    """Keep this thread, and what it starts, on some CPUs; none, or what the kernel refuses, changes nothing."""
    before = os.sched_getaffinity(0)
    with suppress(OSError):
        os.sched_setaffinity(0, cpus or before)
    try:
        yield
    finally:
        with suppress(OSError):
            os.sched_setaffinity(0, before)
