"""Where this machine keeps its cgroups: version 2, version 1, or both ("hybrid")."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from metalmark.system.mounts import parse_mountinfo

_V1_OPTIONS = frozenset(
    ("cpu", "cpuacct", "cpuset", "memory", "pids", "freezer", "devices", "blkio", "net_cls", "net_prio", "hugetlb",
     "perf_event", "rdma", "misc")
)  # fmt: skip


class CgroupVersion(StrEnum):
    """How cgroups are mounted."""

    V2 = "v2"
    V1 = "v1"
    HYBRID = "v1 hybrid"
    """Controllers on version 1, and a version 2 tree beside them."""
    NONE = "none"


@dataclass(frozen=True, kw_only=True)
class CgroupLayout:
    """Which hierarchy has which controller."""

    version: CgroupVersion
    controllers: dict[str, Path]
    """Controller to the folder of the hierarchy that it works in. On v2 each maps to the same folder."""
    hierarchies: tuple[Path, ...]
    """Every mounted hierarchy once; a container runtime makes folders in all of them."""

    @property
    def unified(self) -> bool:
        """Whether limits are version 2's."""
        return self.version is CgroupVersion.V2


def read_layout(root: Path = Path("/")) -> CgroupLayout:
    """Find the hierarchies and controllers that are mounted.

    Args:
        root: Where to look instead of ``/``, for tests.
    """
    v1: dict[Path, tuple[str, ...]] = {}
    v2: list[Path] = []
    for entry in parse_mountinfo((root / "proc/self/mountinfo").read_bytes()):
        place = root / entry.target.lstrip("/")
        if entry.fs_type == "cgroup2" and place not in v2:
            v2.append(place)
        elif entry.fs_type == "cgroup":
            v1[place] = tuple(sorted(entry.super_options & _V1_OPTIONS))
    v1_controllers = {name: place for place, names in v1.items() for name in names}
    if v1_controllers:
        version = CgroupVersion.HYBRID if v2 else CgroupVersion.V1
        return CgroupLayout(version=version, controllers=v1_controllers, hierarchies=(*v1, *v2))
    if not v2:
        return CgroupLayout(version=CgroupVersion.NONE, controllers={}, hierarchies=())
    names = _words(v2[0] / "cgroup.controllers")
    return CgroupLayout(version=CgroupVersion.V2, controllers=dict.fromkeys(names, v2[0]), hierarchies=(v2[0],))


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return []
