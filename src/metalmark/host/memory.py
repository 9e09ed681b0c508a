"""The memory of this machine, and how much of it this process may use."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_LINE = re.compile(r"(\w+):\s+(\d+)(?: kB)?")
_UNLIMITED_BYTES = 1 << 62
"""cgroup v1 writes a number near 2^63 for "no limit"."""


@dataclass(frozen=True, kw_only=True)
class MemoryFacts:
    """Memory at one moment. 0 where the kernel does not say."""

    total_bytes: int
    available_bytes: int
    """What can be used without swapping (MemAvailable)."""
    swap_bytes: int
    limit_bytes: int | None
    """The tightest limit of this process's own cgroup and those above it; None: no limit."""

    @property
    def usable_bytes(self) -> int:
        """The most that boxes could ever get here: the machine's memory, or the cgroup's limit when that is less."""
        return self.total_bytes if self.limit_bytes is None else min(self.total_bytes, self.limit_bytes)


def read_memory(root: Path = Path("/")) -> MemoryFacts:
    """Read the memory of the machine whose ``/proc`` and ``/sys`` lie under ``root``."""
    fields = {match[1]: int(match[2]) * 1024 for match in _LINE.finditer(_read(root / "proc/meminfo"))}
    return MemoryFacts(
        total_bytes=fields.get("MemTotal", 0),
        available_bytes=fields.get("MemAvailable", fields.get("MemFree", 0)),
        swap_bytes=fields.get("SwapTotal", 0),
        limit_bytes=_limit(root),
    )


def _limit(root: Path) -> int | None:
    limits: list[int] = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if ".." in path.split("/"):
            continue
        if controllers == "":
            limits += _limits_upwards(root / "sys/fs/cgroup", path, "memory.max")
        elif "memory" in controllers.split(","):
            limits += _limits_upwards(root / "sys/fs/cgroup/memory", path, "memory.limit_in_bytes")
    return min(limits, default=None)


def _limits_upwards(mount: Path, path: str, file: str) -> list[int]:
    folder = mount / path.lstrip("/")
    found: list[int] = []
    while True:
        text = _read(folder / file).strip()
        if text.isdecimal() and int(text) < _UNLIMITED_BYTES:
            found.append(int(text))
        if folder == mount:
            return found
        folder = folder.parent


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
