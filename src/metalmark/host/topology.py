"""The CPUs of this machine: which there are, which are siblings, and which of them this process may use.

Read from sysfs (Documentation/admin-guide/cputopology.rst of the kernel), ``/proc/self/status`` and the cpuset of the
process's own cgroup. Absent files answer "not known" and never stop the reading.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from metalmark.host.cpu_list import format_cpu_list, parse_cpu_list
from metalmark.model import InputError

_CPU = "sys/devices/system/cpu"


@dataclass(frozen=True, kw_only=True)
class LogicalCpu:
    """One CPU as the scheduler sees it."""

    number: int
    package: int | None = None
    """Physical package (socket), or None when the kernel does not say."""
    core: int | None = None
    """Core within its package; hyper-threads of one core share it."""
    node: int | None = None
    """NUMA node."""
    siblings: tuple[int, ...] = ()
    """Online CPUs of the same core, this one included."""


@dataclass(frozen=True, kw_only=True)
class Topology:
    """The CPUs of a machine at one moment."""

    cpus: tuple[LogicalCpu, ...]
    """The online ones, by number; at least one."""
    allowed: tuple[int, ...]
    """Those of the online ones that this process may run on, by its affinity and its cpuset; at least one."""
    present: tuple[int, ...] = ()
    """All that the machine has, also switched-off ones; empty when not known."""
    boot_isolated: tuple[int, ...] = ()
    """Taken from the scheduler at boot by ``isolcpus=``."""

    @property
    def online(self) -> tuple[int, ...]:
        """Numbers of the online CPUs."""
        return tuple(cpu.number for cpu in self.cpus)

    @property
    def core_count(self) -> int:
        """Physical cores among the online CPUs; the number of CPUs where the kernel does not say."""
        return len({cpu.siblings or (cpu.number,) for cpu in self.cpus})

    @property
    def has_smt(self) -> bool:
        """Whether some core runs more than one hardware thread."""
        return any(len(cpu.siblings) > 1 for cpu in self.cpus)

    def describe(self) -> str:
        """Return one line for people: ``8 CPUs (0-7), 4 cores with 2 threads each, 1 package, 1 NUMA node``."""
        parts = [f"{_count(len(self.cpus), 'CPU')} ({format_cpu_list(self.online)})"]
        parts.append(_count(self.core_count, "core") + (" with hyper-threads" if self.has_smt else ""))
        for noun, numbers in (
            ("package", {cpu.package for cpu in self.cpus}),
            ("NUMA node", {cpu.node for cpu in self.cpus}),
        ):
            if numbers - {None}:
                parts.append(_count(len(numbers - {None}), noun))
        if self.allowed != self.online:
            parts.append(f"only {format_cpu_list(self.allowed)} allowed to this process")
        return ", ".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def read_topology(root: Path = Path("/")) -> Topology:
    """Read the topology of the machine whose ``/sys`` and ``/proc`` lie under ``root``."""
    online = _read_list(root / _CPU / "online") or _processors(root) or (0,)
    nodes = _nodes(root)
    cpus = tuple(_cpu(root, number, online, nodes) for number in online)
    allowed = tuple(number for number in online if number in _allowed(root, online))
    return Topology(
        cpus=cpus,
        allowed=allowed or online,
        present=_read_list(root / _CPU / "present"),
        boot_isolated=_read_list(root / _CPU / "isolated"),
    )


def _cpu(root: Path, number: int, online: tuple[int, ...], nodes: dict[int, int]) -> LogicalCpu:
    folder = root / _CPU / f"cpu{number}" / "topology"
    siblings = _read_list(folder / "thread_siblings_list") or _read_list(folder / "core_cpus_list")
    return LogicalCpu(
        number=number,
        package=_read_int(folder / "physical_package_id"),
        core=_read_int(folder / "core_id"),
        node=nodes.get(number),
        siblings=tuple(sibling for sibling in siblings if sibling in online),
    )


def _nodes(root: Path) -> dict[int, int]:
    """CPU number to NUMA node."""
    found: dict[int, int] = {}
    for folder in (root / "sys/devices/system/node").glob("node[0-9]*"):
        for cpu in _read_list(folder / "cpulist"):
            found[cpu] = int(folder.name.removeprefix("node"))
    return found


def _processors(root: Path) -> tuple[int, ...]:
    """CPU numbers by ``/proc/cpuinfo``, for machines where sysfs is hidden."""
    numbers = (
        line.partition(":")[2].strip() for line in _read(root / "proc/cpuinfo").splitlines() if line[:9] == "processor"
    )
    return tuple(sorted({int(number) for number in numbers if number.isdecimal()}))


def _allowed(root: Path, online: tuple[int, ...]) -> set[int]:
    """What affinity and cpuset leave; each only where it can be read."""
    left = set(online)
    for line in _read(root / "proc/self/status").splitlines():
        if line.startswith("Cpus_allowed_list:"):
            left &= set(_parse_quietly(line.partition(":")[2]) or online)
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for file in _cpuset_files(root, controllers, path):
            left &= set(_read_list(file) or online)
    return left


def _cpuset_files(root: Path, controllers: str, path: str) -> tuple[Path, ...]:
    base = root / "sys/fs/cgroup"
    if ".." in path.split("/"):  # outside our cgroup namespace: what is mounted there is not this group
        return ()
    relative = path.lstrip("/")
    if controllers == "":
        return (base / relative / "cpuset.cpus.effective", base / "unified" / relative / "cpuset.cpus.effective")
    if "cpuset" in controllers.split(","):
        return (base / "cpuset" / relative / "cpuset.effective_cpus", base / "cpuset" / relative / "cpuset.cpus")
    return ()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _read_int(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdecimal() else None  # -1 stands for "not known"


def _read_list(path: Path) -> tuple[int, ...]:
    return _parse_quietly(_read(path))


def _parse_quietly(text: str) -> tuple[int, ...]:
    """The kernel writes an empty line for no CPUs; what is garbled counts as not known."""
    try:
        return parse_cpu_list(text, field="") if text.strip() else ()
    except InputError:
        return ()
