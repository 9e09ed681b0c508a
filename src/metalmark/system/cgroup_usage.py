"""What the commands of a box have used, from their cgroup."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from metalmark.system.cgroup import BoxCgroup


@dataclass(frozen=True, kw_only=True)
class CgroupUsage:
    """What a cgroup has used since it was made. 0 where this kernel does not tell."""

    user_us: int
    system_us: int
    memory_peak_bytes: int
    """Most memory at once, page cache included; since the last `reset_peak` where the kernel can."""
    oom_kills: int
    """Processes killed because the memory limit was met."""


def read_usage(cgroup: BoxCgroup, part: str = "job/commands") -> CgroupUsage:
    """Read what a part of a box has used."""
    if cgroup.layout.unified:
        folder = cgroup.folders(part)[0]
        cpu = _keyed(folder / "cpu.stat")
        return CgroupUsage(
            user_us=cpu.get("user_usec", 0),
            system_us=cpu.get("system_usec", 0),
            memory_peak_bytes=_number(folder / "memory.peak"),
            oom_kills=_keyed(folder / "memory.events").get("oom_kill", 0),
        )
    memory = cgroup.folder("memory", part)
    user_us, system_us = _v1_times(cgroup.folder("cpuacct", part))
    return CgroupUsage(
        user_us=user_us,
        system_us=system_us,
        memory_peak_bytes=_number(memory / "memory.max_usage_in_bytes") if memory else 0,
        oom_kills=_keyed(memory / "memory.oom_control").get("oom_kill", 0) if memory else 0,
    )


def _v1_times(folder: Path | None) -> tuple[int, int]:
    """User and system time: the exact sum, divided as the kernel's ticks are; version 2 does that itself."""
    if folder is None:
        return 0, 0
    total_us = _number(folder / "cpuacct.usage") // 1000
    user, system = _number(folder / "cpuacct.usage_user"), _number(folder / "cpuacct.usage_sys")
    user_us = total_us * user // (user + system) if user + system else total_us
    return user_us, total_us - user_us


def reset_peak(cgroup: BoxCgroup, part: str = "job/commands") -> None:
    """Let the peak of memory start again at what is used now, where the kernel can (version 1)."""
    folder = None if cgroup.layout.unified else cgroup.folder("memory", part)
    if folder is not None:
        with suppress(OSError):
            (folder / "memory.max_usage_in_bytes").write_text("0", encoding="ascii")


def watch_oom(cgroup: BoxCgroup, part: str = "job/commands") -> int | None:
    """Return an eventfd that becomes readable each time the memory limit is met; the caller closes it.

    Version 2 kills the whole group by itself, so there it is None; version 1 kills one process, and whoever watches
    has to end the others.
    """
    folder = None if cgroup.layout.unified else cgroup.folder("memory", part)
    if folder is None or not (folder / "cgroup.event_control").exists():
        return None
    event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        control = os.open(folder / "memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        try:
            (folder / "cgroup.event_control").write_text(f"{event} {control}", encoding="ascii")
        finally:
            os.close(control)
    except OSError:
        os.close(event)
        return None
    return event


def _number(path: Path) -> int:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def _keyed(path: Path) -> dict[str, int]:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    pairs = (line.split() for line in lines)
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
