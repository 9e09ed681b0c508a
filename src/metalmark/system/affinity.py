"""The CPUs that this thread runs on."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress


class _Bindings(threading.local):
    """What holds in a thread: its CPUs before anybody bound it, and each binding that has not ended, oldest first."""

    def __init__(self) -> None:
        self.before: Collection[int] = ()
        self.held: list[list[int]] = []


_bindings = _Bindings()


@contextmanager
def bound_to(cpus: Collection[int]) -> Iterator[None]:
    """Keep this thread, and what it starts, on some CPUs; none, or what the kernel refuses, changes nothing.

    Tasks of one thread may overlap: the newest binding that has not ended holds, and the thread has its own CPUs back
    when the last one ends, whichever that is.
    """
    if not cpus:
        yield
        return
    if not _bindings.held:
        _bindings.before = os.sched_getaffinity(0)
    # A list of its own: identity tells equal bindings apart when they end.
    mine = sorted(cpus)
    _bindings.held.append(mine)
    with suppress(OSError):
        os.sched_setaffinity(0, mine)
    try:
        yield
    finally:
        held = _bindings.held
        del held[next(place for place, one in enumerate(held) if one is mine)]
        with suppress(OSError):
            os.sched_setaffinity(0, held[-1] if held else _bindings.before)
