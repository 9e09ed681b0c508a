"""Folders that look like a machine's cgroup hierarchies. Nothing in them acts; what is written can be read back."""

from __future__ import annotations

from pathlib import Path

_V1 = ("cpu,cpuacct", "cpuset", "memory", "pids", "freezer", "devices")


def _mountinfo(root: Path, lines: list[str]) -> None:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/mountinfo").write_text("".join(f"{line}\n" for line in lines))


def v2_tree(root: Path, controllers: str = "cpuset cpu io memory pids") -> Path:
    """A machine with version 2 alone; returns the hierarchy."""
    top = root / "sys/fs/cgroup"
    top.mkdir(parents=True)
    (top / "cgroup.controllers").write_text(controllers)
    (top / "cgroup.subtree_control").write_text("")
    _mountinfo(root, ["30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"])
    return top


def v1_tree(root: Path, *, hybrid: bool) -> Path:
    """A machine with version 1, and beside it a tree of version 2 without controllers; returns their common folder."""
    top = root / "sys/fs/cgroup"
    lines = []
    for number, names in enumerate(_V1):
        (top / names).mkdir(parents=True)
        lines.append(f"{31 + number} 30 0:{27 + number} / /sys/fs/cgroup/{names} rw - cgroup cgroup rw,{names}")
    (top / "systemd").mkdir()
    lines.append("60 30 0:60 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd")
    for name in ("cpuset.cpus", "cpuset.mems"):
        (top / "cpuset" / name).write_text("0-3\n" if name.endswith("cpus") else "0\n")
    if hybrid:
        (top / "unified").mkdir()
        (top / "unified/cgroup.controllers").write_text("")
        lines.append("61 30 0:61 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw")
    _mountinfo(root, lines)
    return top


_V2_FILES = ("cgroup.procs", "cgroup.controllers", "cgroup.subtree_control", "cpuset.cpus", "memory.max",
             "memory.swap.max", "memory.oom.group", "pids.max", "cpu.max")  # fmt: skip
_V1_FILES = {
    "cpu,cpuacct": ("cpu.cfs_period_us", "cpu.cfs_quota_us"),
    "cpuset": ("cpuset.cpus", "cpuset.mems"),
    "memory": ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.swappiness"),
    "pids": ("pids.max",),
    "freezer": (),
    "devices": (),
}


def plant_v2(top: Path, box: str, *, without: tuple[str, ...] = ()) -> None:
    """Make the files that the kernel would make in the groups of a box."""
    for part in ("", box, f"{box}/agent", f"{box}/job", f"{box}/job/commands"):
        folder = top / "metalmark" / part
        folder.mkdir(parents=True, exist_ok=True)
        for name in _V2_FILES:
            if name not in without:
                (folder / name).write_text("cpuset cpu memory pids" if name == "cgroup.controllers" else "")


def plant_v1(top: Path, box: str, *, without: tuple[str, ...] = ()) -> None:
    """The same for version 1."""
    for names, files in _V1_FILES.items():
        for part in ("", box, f"{box}/agent", f"{box}/job", f"{box}/job/commands"):
            if part.endswith("commands") and names == "devices":
                continue
            folder = top / names / "metalmark" / part
            folder.mkdir(parents=True, exist_ok=True)
            for name in (*files, "cgroup.procs"):
                if name not in without:
                    (folder / name).write_text("")
