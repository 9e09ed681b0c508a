"""What of Metalmark is on this machine right now, so that a test can compare before and after."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from metalmark.system import monotonic_s, read_layout, read_loops, read_mounts, sleep_s, start_ticks


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Names of everything found."""

    processes: frozenset[str]
    mounts: frozenset[str]
    loops: frozenset[str]
    cgroups: frozenset[str]
    sockets: frozenset[str]
    """Unix sockets with a path, network namespaces that are bound to a path."""
    files: frozenset[str]

    def __sub__(self, other: Listing) -> dict[str, list[str]]:
        """What is here and not in the other, by kind; empty when nothing is."""
        kinds = ("processes", "mounts", "loops", "cgroups", "sockets", "files")
        found = {kind: sorted(getattr(self, kind) - getattr(other, kind)) for kind in kinds}
        return {kind: names for kind, names in found.items() if names}


def list_leftovers(*folders: Path, box_prefixes: tuple[str, ...] = ("",)) -> Listing:
    """List what exists with a name that has to do with some folders: a test's own home and temporary folders.

    Args:
        folders: Only things that mention one of these count.
        box_prefixes: Boxes count, their cgroups and agents, whose names begin like this: other tests may run beside.
    """
    prefixes = tuple(str(folder) for folder in folders)
    return Listing(
        processes=frozenset(_processes(prefixes, box_prefixes)),
        mounts=frozenset(entry.target for entry in read_mounts() if entry.target.startswith(prefixes)),
        loops=frozenset(
            f"{loop.device} {loop.backing_file}" for loop in read_loops() if loop.backing_file.startswith(prefixes)
        ),
        cgroups=frozenset(_cgroups(box_prefixes)),
        sockets=frozenset(_sockets(prefixes)),
        files=frozenset(str(path) for folder in folders for path in _files(folder)),
    )


async def nothing_left(
    before: Listing, *folders: Path, box_prefixes: tuple[str, ...] = ("",), within_s: float = 5.0
) -> dict[str, list[str]]:
    """Return what is there beyond an earlier listing, once that is nothing or the time is up."""
    deadline = monotonic_s() + within_s
    while (extra := list_leftovers(*folders, box_prefixes=box_prefixes) - before) and monotonic_s() < deadline:
        await sleep_s(0.05)
    return extra


def _processes(prefixes: tuple[str, ...], box_prefixes: tuple[str, ...]) -> list[str]:
    boxes = tuple(f"/metalmark/{prefix}" for prefix in box_prefixes)
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
            groups = (folder / "cgroup").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        # An agent in a container names no folder: whose it is, its control group says.
        agent = line.startswith("/dev/.metalmark-agent") and any(box in groups for box in boxes)
        ours = agent or any(prefix in line for prefix in prefixes)
        if ours and "pytest" not in line and start_ticks(int(folder.name)) is not None:
            found.append(f"{folder.name} {line}")
    return found


def _cgroups(box_prefixes: tuple[str, ...]) -> list[str]:
    found = []
    for base in read_layout().hierarchies:
        for path, folders, _ in os.walk(base / "metalmark"):
            if path == str(base / "metalmark"):
                folders[:] = [name for name in folders if name.startswith(box_prefixes)]
            else:
                found.append(path)
    return found


def _sockets(prefixes: tuple[str, ...]) -> list[str]:
    lines = Path("/proc/net/unix").read_text(encoding="utf-8", errors="replace").splitlines()[1:]
    paths = [parts[7] for parts in (line.split(maxsplit=7) for line in lines) if len(parts) == 8]
    return [path for path in paths if path.startswith(prefixes)]


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if "boxes/" in str(path)]
