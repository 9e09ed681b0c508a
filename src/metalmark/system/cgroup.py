"""The cgroups of one box, the same for version 1 and 2.

::

    metalmark/<box>/
        agent           the runtime and the guest agent: never limited, so never the victim
        job             carries the limits; the box sees it as the root of its cgroup tree
            commands    carries them again; what the user runs, and what is accounted

A container runtime starts its first process in ``job``; `BoxCgroup.settle` then moves that to ``agent``. Commands
write themselves into ``commands`` through descriptors opened here.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from metalmark.model import NoPermission, StableError
from metalmark.system.cgroup_layout import CgroupLayout

PARENT = "metalmark"
PERIOD_US = 100_000
_CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "pids")
_PARTS = ("", "agent", "job", "job/commands")
_POLL_S = 0.002


@dataclass(frozen=True, kw_only=True)
class CgroupLimits:
    """What the commands of a box may use together; 0 or empty: no bound."""

    cpus: tuple[int, ...] = ()
    cpu_quota: float = 0.0
    """CPU seconds a second."""
    memory_bytes: int = 0
    """Without swap. When it is used up, every command process is killed at once."""
    pids: int = 0
    agent_cpus: tuple[int, ...] = ()
    """Where the runtime and the guest agent run, out of the commands' way; empty: anywhere."""


class BoxCgroup:
    """The cgroups of one box. `create` makes them, `remove` ends every process in them and takes them away."""

    def __init__(self, layout: CgroupLayout, name: str) -> None:
        self.layout = layout
        self.name = name
        self._limits = CgroupLimits()
        self.warnings: tuple[str, ...] = ()
        """Limits that this machine does not enforce, found by reading back."""

    @property
    def path(self) -> str:
        """Path of the box below each hierarchy, as an OCI configuration wants it."""
        return f"/{PARENT}/{self.name}"

    def folders(self, part: str = "") -> tuple[Path, ...]:
        """The folder of a part (``agent``, ``job``, ``job/commands``; empty: the box) in every hierarchy."""
        return tuple(base / PARENT / self.name / part for base in self.layout.hierarchies)

    def folder(self, controller: str, part: str) -> Path | None:
        """The folder of a part in the hierarchy of a controller; None when the machine lacks the controller."""
        base = self.layout.controllers.get(controller)
        return None if base is None else base / PARENT / self.name / part

    def create(self, limits: CgroupLimits) -> None:
        """Make the cgroups and set the limits of ``job``.

        Raises:
            NoPermission: The user may not make cgroups.
            StableError: The machine has none, or the kernel refused a limit.
        """
        if not self.layout.hierarchies:
            raise StableError(
                "no cgroups are mounted", why="a box is limited by them", hint="mount -t cgroup2 none /sys/fs/cgroup"
            )
        if any(_pids_below(folder) for folder in self.folders()):
            raise StableError(f"a cgroup {self.path} with processes exists", why="another box has that name")
        try:
            self._make_folders()
            self._inherit_cpusets("", *(f"{self.name}/{part}" for part in ("", "agent", "job")))
            self._write_limits(limits, "job")
            self._inherit_cpusets(f"{self.name}/job/commands")
            self._bind_agent(limits.agent_cpus)
        except PermissionError as error:
            self.remove()
            raise NoPermission(
                f"{error.filename} cannot be written", why="a box is limited by cgroups", hint="run as root"
            ) from error
        except OSError as error:
            self.remove()
            raise StableError(f"{error.filename}: {error.strerror}", why="a cgroup could not be set up") from error
        except BaseException:
            self.remove()
            raise
        self._limits = limits

    def _make_folders(self) -> None:
        accounted = self._accounted()
        for base in self.layout.hierarchies:
            for part in _PARTS if base in accounted else _PARTS[:-1]:
                # Another box that ends takes the empty parent away; then it is made again.
                _make_below(base, f"{PARENT}/{self.name}/{part}".rstrip("/"))
        if self.layout.unified:
            base = self.layout.hierarchies[0]
            for folder in (base, base / PARENT, base / PARENT / self.name):
                _delegate(folder)

    def settle(self) -> None:
        """Move what a runtime started in ``job`` to ``agent``, and set the limits of ``commands`` too.

        Raises:
            StableError: The kernel refused.
        """
        try:
            for base in self._accounted():
                box = base / PARENT / self.name
                _move_all(box / "job", box / "agent")
            if self.layout.unified:
                _delegate(self.folders("job")[0])
            self._write_limits(self._limits, "job/commands")
        except OSError as error:
            raise StableError(f"{error.filename}: {error.strerror}", why="a cgroup could not be set up") from error
        self.warnings = tuple(self._not_enforced())

    def procs_files(self, part: str) -> tuple[Path, ...]:
        """The ``cgroup.procs`` files that a process writes itself into to be in a part of the box.

        For ``agent``, on version 1, only those by which it is found and killed and kept off the commands' CPUs: it is
        not limited, and each file costs time.
        """
        if self.layout.unified or part != "agent":
            return tuple(folder / "cgroup.procs" for folder in self.folders(part))
        folders = [self.folder(name, part) for name in ("freezer", "cpuset")]
        found = tuple(folder / "cgroup.procs" for folder in folders if folder is not None)
        return found or tuple(folder / "cgroup.procs" for folder in self.folders(part))

    def _accounted(self) -> tuple[Path, ...]:
        """The hierarchies that limit or account, the others being left to the runtime.

        A version 1 device list, for one, cannot be set once its group has groups below it.
        """
        if self.layout.unified:
            return self.layout.hierarchies[:1]
        names = (*_CONTROLLERS, "freezer")
        return tuple(dict.fromkeys(self.layout.controllers[n] for n in names if n in self.layout.controllers))

    def commands_files(self) -> tuple[Path, ...]:
        """The ``cgroup.procs`` files through which a command joins ``commands``."""
        return tuple(base / PARENT / self.name / "job/commands/cgroup.procs" for base in self._accounted())

    def _settings(self, limits: CgroupLimits) -> Iterator[tuple[str, str, str]]:
        """Yield (controller, file, value) in the order in which they must be written."""
        unified = self.layout.unified
        if limits.cpus:
            yield "cpuset", "cpuset.cpus", _cpu_text(limits.cpus)
        if limits.memory_bytes and unified:
            yield "memory", "memory.max", str(limits.memory_bytes)
            yield "memory", "memory.swap.max", "0"
            yield "memory", "memory.oom.group", "1"
        elif limits.memory_bytes:
            yield "memory", "memory.limit_in_bytes", str(limits.memory_bytes)
            yield "memory", "memory.memsw.limit_in_bytes", str(limits.memory_bytes)
            yield "memory", "memory.swappiness", "0"
        if limits.pids:
            yield "pids", "pids.max", str(limits.pids)
        if limits.cpu_quota and unified:
            yield "cpu", "cpu.max", f"{round(limits.cpu_quota * PERIOD_US)} {PERIOD_US}"
        elif limits.cpu_quota:
            yield "cpu", "cpu.cfs_period_us", str(PERIOD_US)
            yield "cpu", "cpu.cfs_quota_us", str(round(limits.cpu_quota * PERIOD_US))

    def _write_limits(self, limits: CgroupLimits, part: str) -> None:
        for controller, name, value in self._settings(limits):
            folder = self.folder(controller, part)
            # What has no file, swap accounting say, is told after reading back.
            if folder is not None and (folder / name).exists():
                _write(folder / name, value)

    def _bind_agent(self, cpus: tuple[int, ...]) -> None:
        folder = self.folder("cpuset", "agent")
        if cpus and folder is not None and (folder / "cpuset.cpus").exists():
            _write(folder / "cpuset.cpus", _cpu_text(cpus))

    def _inherit_cpusets(self, *parts: str) -> None:
        # A version 1 cpuset starts empty, and takes no process until both lists are set; from the top down.
        base = None if self.layout.unified else self.layout.controllers.get("cpuset")
        if base is None:
            return
        for part in parts:
            folder = base / PARENT / part
            for name in ("cpuset.cpus", "cpuset.mems"):
                if not _read(folder / name):
                    _write(folder / name, _read(folder.parent / name) or "")

    def _not_enforced(self) -> Iterator[str]:
        told = set()
        for controller, name, value in self._settings(self._limits):
            folder = self.folder(controller, "job/commands")
            found = None if folder is None else _read(folder / name)
            if found is None and name in ("memory.swap.max", "memory.memsw.limit_in_bytes", "memory.swappiness"):
                if _swap_is_on():
                    yield "swap is not limited: this kernel does not account for it"
                continue
            if _same(name, value, found) or controller in told:
                continue
            told.add(controller)
            reason = f"{name} reads back {found!r}" if found is not None else f"no cgroup controller {controller} here"
            yield f"the limit of {_MEANING[controller]} is not enforced: {reason}"

    def pids(self, part: str = "") -> frozenset[int]:
        """Process ids in a part and below it, for listings; to end them use `kill`."""
        found: set[int] = set()
        for folder in self.folders(part):
            found.update(_pids_below(folder))
        return frozenset(found)

    def kill(self, part: str = "", *, timeout_s: float = 10.0) -> bool:
        """Kill every process in a part and below it, and wait until there is none. Blocking.

        Returns:
            False: some were still there at the deadline, stuck in the kernel.
        """
        deadline = time.monotonic() + timeout_s
        folders = [folder for folder in self.folders(part) if folder.is_dir()]
        killers = [folder / "cgroup.kill" for folder in folders if (folder / "cgroup.kill").exists()]
        while any(_pids_below(folder) for folder in folders):
            if time.monotonic() > deadline:
                return False
            for killer in killers:
                with suppress(OSError):
                    _write(killer, "1")
            for folder in folders:
                if not (folder / "cgroup.kill").exists():
                    _kill_frozen(folder)
            time.sleep(_POLL_S)
        return True

    def remove(self, *, timeout_s: float = 10.0) -> bool:
        """Kill what is left and take the cgroups away; also a half-made box's. Blocking, safe to repeat.

        Returns:
            False: something could not be removed.
        """
        self.kill(timeout_s=timeout_s)
        deadline = time.monotonic() + timeout_s
        while True:
            left = [folder for folder in self.folders() if folder.is_dir() and not _remove_tree(folder)]
            if not left or time.monotonic() > deadline:
                break
            # A process that has just ended may hold its cgroup until it is reaped.
            time.sleep(_POLL_S)
        for base in self.layout.hierarchies:
            with suppress(OSError):
                (base / PARENT).rmdir()
        return not left


_MEANING = {"cpuset": "CPUs", "memory": "memory", "pids": "processes", "cpu": "CPU time"}


def _same(name: str, wanted: str, found: str | None) -> bool:
    if found is None:
        return False
    if name == "cpuset.cpus":
        return _numbers(found) == _numbers(wanted)
    if wanted.isdigit() and found.isdigit():
        # Memory limits are rounded down to whole pages.
        return 0 <= int(wanted) - int(found) < os.sysconf("SC_PAGE_SIZE")
    return wanted.split() == found.split()


def _numbers(text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def _cpu_text(cpus: tuple[int, ...]) -> str:
    return ",".join(map(str, cpus))


def _swap_is_on(path: Path = Path("/proc/swaps")) -> bool:
    return len((_read(path) or "").splitlines()) > 1


def _make_below(base: Path, path: str) -> None:
    for attempt in range(10):
        try:
            (base / path).mkdir(parents=True, exist_ok=True)
        except FileNotFoundError:
            if attempt == 9:
                raise
        else:
            return


def _delegate(folder: Path) -> None:
    available = (_read(folder / "cgroup.controllers") or "").split()
    enabled = (_read(folder / "cgroup.subtree_control") or "").split()
    for name in _CONTROLLERS:
        # One at a time: one that cannot be given on does not keep the others back. Reading back tells.
        if name in available and name not in enabled:
            with suppress(OSError):
                _write(folder / "cgroup.subtree_control", f"+{name}")


def _move_all(source: Path, target: Path) -> None:
    # Again until none is left: one may fork between the listing and its move.
    for _ in range(100):
        pids = (_read(source / "cgroup.procs") or "").split()
        if not pids:
            return
        for pid in pids:
            with suppress(ProcessLookupError):
                _write(target / "cgroup.procs", pid)


def _kill_frozen(folder: Path) -> None:
    """Stop everything in a folder, kill it, let it go: what is stopped neither forks nor gives its pid to another."""
    for name, stop, go in (("freezer.state", "FROZEN", "THAWED"), ("cgroup.freeze", "1", "0")):
        if not (folder / name).exists():
            continue
        with suppress(OSError):
            _write(folder / name, stop)
            _kill_listed(folder)
        with suppress(OSError):
            _write(folder / name, go)
        return
    _kill_listed(folder)


def _kill_listed(folder: Path) -> None:
    for pid in _pids_below(folder):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _pids_below(folder: Path) -> tuple[int, ...]:
    found: list[int] = []
    for path, _, files in os.walk(folder):
        if "cgroup.procs" in files:
            # 0 stands for a process of another pid namespace, which this one could not signal either.
            found += [int(pid) for pid in (_read(Path(path) / "cgroup.procs") or "").split() if pid != "0"]
    return tuple(found)


def _remove_tree(folder: Path) -> bool:
    for path, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            Path(path).rmdir()
    return not folder.exists()


def _write(path: Path, value: str) -> None:
    # Not Path.write_text: it would truncate, and a cgroup file's error comes with the write, without a name.
    try:
        descriptor = os.open(path, os.O_WRONLY)
        try:
            os.write(descriptor, value.encode("ascii"))
        finally:
            os.close(descriptor)
    except OSError as error:
        error.filename = str(path)
        raise


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return None
