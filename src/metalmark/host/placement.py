"""Which CPUs a job gets.

The machine's CPUs are split in two: the first one (of 2 to 7), or the first two (of 8 and more), do the housekeeping:
Metalmark itself, the VMM's helper threads, interrupts. The rest is for the benchmark, each virtual CPU on one of its
own. A machine with a single CPU shares it. The benchmark is pinned also when nobody asked for particular CPUs, since a
scheduler that moves it would be measured with it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from metalmark.host.cpu_list import format_cpu_list
from metalmark.host.topology import Topology
from metalmark.model import InputError

_TWO_HOUSEKEEPING_FROM = 8


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The CPUs of one job."""

    cpus: tuple[int, ...]
    """One for each virtual CPU, in that order."""
    helper_cpus: tuple[int, ...]
    """For everything that runs beside the benchmark; never empty."""
    isolated: bool
    """Whether no CPU is in both sets."""
    warnings: tuple[str, ...] = ()
    """What makes results noisier than they need be; for people."""


@dataclass(frozen=True, kw_only=True)
class CpuSplit:
    """The two sets of a machine. They are the same when there is a single CPU."""

    housekeeping: tuple[int, ...]
    benchmark: tuple[int, ...]

    @property
    def isolated(self) -> bool:
        """Whether the benchmark has CPUs to itself."""
        return not set(self.housekeeping) & set(self.benchmark)


def split(topology: Topology) -> CpuSplit:
    """Divide the CPUs that this process may use into housekeeping and benchmark."""
    usable = topology.allowed
    if len(usable) == 1:
        return CpuSplit(housekeeping=usable, benchmark=usable)
    count = 2 if len(usable) >= _TWO_HOUSEKEEPING_FROM else 1
    return CpuSplit(housekeeping=usable[:count], benchmark=usable[count:])


def fits(topology: Topology, *, vcpus: int, in_use: Collection[int]) -> bool:
    """Whether a job can be placed beside others.

    It gets no CPU of theirs, nor one of the housekeeping that their helpers are on: then it has to wait for them.

    Args:
        topology: The machine.
        vcpus: How many virtual CPUs the box has.
        in_use: The CPUs of other jobs.
    """
    return not in_use or vcpus <= len(_unused(topology, in_use))


def _unused(topology: Topology, in_use: Collection[int]) -> tuple[int, ...]:
    return tuple(cpu for cpu in split(topology).benchmark if cpu not in in_use)


def place(
    topology: Topology, *, vcpus: int, requested: tuple[int, ...] = (), in_use: Collection[int] = ()
) -> Placement:
    """Choose CPUs for a job.

    Args:
        topology: The machine.
        vcpus: How many virtual CPUs the box has; at least 1.
        requested: The CPUs that the user named (``--cpus``), sorted; empty: the benchmark set of `split`.
        in_use: The CPUs of other jobs, which this one does not get; see `fits`. Not looked at for requested CPUs.

    Raises:
        InputError: More virtual CPUs than there are CPUs, more than the other jobs leave, or CPUs requested that are
            offline, not allowed to this process, or fewer than the virtual CPUs.
    """
    if vcpus < 1:
        raise InputError("--vcpus", vcpus, "a box needs at least one virtual CPU", hint="use --vcpus 1")
    if vcpus > len(topology.allowed):
        raise InputError("--vcpus", vcpus, _too_many(topology), hint=f"use --vcpus {len(topology.allowed)} or fewer")
    if requested:
        return _place_requested(topology, vcpus, requested)
    sets = split(topology)
    if in_use:
        unused = _unused(topology, in_use)
        if vcpus > len(unused):
            why = f"other jobs use CPU {format_cpu_list(sorted(in_use))}"
            raise InputError("--vcpus", vcpus, why, hint="wait for their end")
        return Placement(cpus=unused[:vcpus], helper_cpus=sets.housekeeping, isolated=sets.isolated)
    if vcpus <= len(sets.benchmark):
        warnings = () if sets.isolated else ("the machine has one CPU: the benchmark shares it with everything else",)
        return Placement(
            cpus=sets.benchmark[:vcpus], helper_cpus=sets.housekeeping, isolated=sets.isolated, warnings=warnings
        )
    borrowed = sets.housekeeping[len(sets.benchmark) - vcpus :]
    left = tuple(cpu for cpu in sets.housekeeping if cpu not in borrowed)
    warning = (
        f"{vcpus} virtual CPUs need more than the {len(sets.benchmark)} of the benchmark set"
        f" ({format_cpu_list(sets.benchmark)}): housekeeping CPU {format_cpu_list(borrowed)} is used too"
    )
    return Placement(
        cpus=sets.benchmark + borrowed,
        helper_cpus=left or sets.housekeeping,
        isolated=bool(left),
        warnings=(warning,),
    )


def _place_requested(topology: Topology, vcpus: int, requested: tuple[int, ...]) -> Placement:
    text = format_cpu_list(requested)
    usable = f"usable here: {format_cpu_list(topology.allowed)}"
    if offline := set(requested) - set(topology.online):
        raise InputError("--cpus", text, f"CPU {format_cpu_list(offline)} is not online", hint=usable)
    if denied := set(requested) - set(topology.allowed):
        why = f"CPU {format_cpu_list(denied)} is kept from this process by its affinity or its cgroup's cpuset"
        raise InputError("--cpus", text, why, hint=usable)
    if len(requested) < vcpus:
        why = f"{vcpus} virtual CPUs need as many CPUs, each one its own"
        raise InputError("--cpus", text, why, hint=f"name {vcpus} CPUs, or use --vcpus {len(requested)}")
    cpus = requested[:vcpus]
    warnings: list[str] = []
    if len(requested) > vcpus:
        used = format_cpu_list(cpus)
        warnings.append(f"of --cpus {text} only {used} is used, since the box has --vcpus {vcpus}")
    free = tuple(cpu for cpu in topology.allowed if cpu not in cpus)
    # Spare CPUs that the user named were named for the benchmark: helpers go there only when nothing else is left.
    unnamed = tuple(cpu for cpu in free if cpu not in requested)
    housekeeping = tuple(cpu for cpu in split(topology).housekeeping if cpu in unnamed)
    helpers = housekeeping or unnamed or free
    if not helpers:
        warnings.append(f"--cpus {text} is every CPU there is: the benchmark shares them with everything else")
    return Placement(cpus=cpus, helper_cpus=helpers or cpus, isolated=bool(helpers), warnings=tuple(warnings))


def _too_many(topology: Topology) -> str:
    online, allowed = len(topology.online), len(topology.allowed)
    if allowed < online:
        return (
            f"each needs a CPU of its own, and of {online} online CPUs this process may use {allowed}"
            f" ({format_cpu_list(topology.allowed)})"
        )
    return f"each needs a CPU of its own, and this machine has {online} online"
