"""Threads of a process and the CPUs that they may run on."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Thread:
    """One thread of a process."""

    tid: int
    name: str


def threads_of(pid: int, proc: Path = Path("/proc")) -> tuple[Thread, ...]:
    """Return the threads of a process, oldest first; none when it has ended."""
    try:
        tids = sorted(int(entry.name) for entry in (proc / str(pid) / "task").iterdir())
    except OSError:
        return ()
    found = []
    for tid in tids:
        try:
            name = (proc / str(pid) / "task" / str(tid) / "comm").read_bytes()
        except OSError:
            continue
        found.append(Thread(tid=tid, name=name.rstrip(b"\n").decode("utf-8", "replace")))
    return tuple(found)


def bind_thread(tid: int, cpus: Iterable[int]) -> frozenset[int]:
    """Let a thread run on these CPUs alone, and return what the kernel made of it: a cpuset may allow fewer.

    Raises:
        OSError: No such thread, none of the CPUs is there, or the thread is somebody else's.
    """
    os.sched_setaffinity(tid, cpus)
    return frozenset(os.sched_getaffinity(tid))


def bind_others(pid: int, cpus: Iterable[int], *, except_tids: Iterable[int]) -> tuple[int, ...]:
    """Bind every thread of a process that is not excepted, and return which ones were.

    Threads that end meanwhile are left out.
    """
    kept = frozenset(except_tids)
    wanted = tuple(cpus)
    bound = []
    for thread in threads_of(pid):
        if thread.tid in kept:
            continue
        try:
            os.sched_setaffinity(thread.tid, wanted)
        except ProcessLookupError:
            continue
        bound.append(thread.tid)
    return tuple(bound)
