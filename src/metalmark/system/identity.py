"""Who a process is: its pid is reused, its pid with start time and boot id is not."""

from __future__ import annotations

import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class ProcessIdentity:
    """A process, named so that a later one with the same pid is told apart."""

    pid: int
    start_ticks: int
    """Field 22 of ``/proc/PID/stat``: clock ticks from boot to the start of the process."""
    boot_id: str


def boot_id(proc: Path = Path("/proc")) -> str:
    """Return the kernel's random name of this boot."""
    return (proc / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def start_ticks(pid: int, proc: Path = Path("/proc")) -> int | None:
    """Return when a process started, or None when there is no such process or it is a zombie."""
    try:
        stat = (proc / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def own_identity() -> ProcessIdentity:
    """Return the identity of this process.

    Raises:
        ProcessLookupError: ``/proc`` is not mounted.
    """
    found = identity_of(os.getpid())
    if found is None:
        raise ProcessLookupError("/proc does not show this process")
    return found


def identity_of(pid: int) -> ProcessIdentity | None:
    """Return the identity of a live process, or None."""
    ticks = start_ticks(pid)
    return None if ticks is None else ProcessIdentity(pid=pid, start_ticks=ticks, boot_id=boot_id())


def is_alive(identity: ProcessIdentity) -> bool:
    """Whether exactly that process still runs."""
    return identity.boot_id == boot_id() and start_ticks(identity.pid) == identity.start_ticks


def kill_process(identity: ProcessIdentity, *, timeout_s: float = 5.0) -> bool:
    """Kill exactly that process, which need not be a child, and wait for its end. Blocking.

    Returns:
        False: it is still there, stuck in the kernel.
    """
    try:
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return True
    try:
        # Only now is it certain that the descriptor does not stand for a later process with the same pid.
        if not is_alive(identity):
            return True
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        return bool(poller.poll(timeout_s * 1000)) or not is_alive(identity)
    except ProcessLookupError:
        return True
    finally:
        os.close(descriptor)
