"""Decisions about the machine itself: space, CPUs, and what only makes results noisier. Pure."""

from __future__ import annotations

import re

from metalmark.host import format_cpu_list, split
from metalmark.model import GIB, MIB, format_bytes
from metalmark.runner.examination import Examination
from metalmark.runner.finding import Finding, Note, Status

_WANTED_BYTES = {"state": 256 * MIB, "cache": 1 * GIB, "run": 256 * MIB}
"""state: a guest kernel; cache: a root file system of usual size beside its layers; run: what a small box writes."""
_ISOLATION = ("isolcpus=", "nohz_full=")
_SLOW_CREATE_FROM = (6, 1)


def check_free_space(examination: Examination) -> Finding:
    """Free space in Metalmark's folders, and that they can be written."""
    why = "images, guest kernels and the boxes' scratch disks are kept there"
    spaces = examination.facts.spaces
    fix = "free some with `metalmark image gc`, or set METALMARK_HOME to a folder on a larger file system"
    denied = [space for space in spaces if not space.writable]
    if denied:
        found = ", ".join(f"{space.folder} cannot be written" for space in denied)
        fix = "run as its owner, or set METALMARK_HOME to a folder of your own"
        return Finding(name="free-space", status=Status.UNUSABLE, found=found, why=why, fix=fix)
    tight = [space for space in spaces if space.free_bytes < _WANTED_BYTES[space.purpose]]
    shown = tight or spaces
    found = ", ".join(f"{space.purpose} {space.folder} {format_bytes(space.free_bytes)} free" for space in shown)
    if tight:
        wanted = ", ".join(f"{space.purpose} {format_bytes(_WANTED_BYTES[space.purpose])}" for space in tight)
        return Finding(name="free-space", status=Status.UNUSABLE, found=f"{found}; wanted: {wanted}", why=why, fix=fix)
    return Finding(name="free-space", status=Status.OK, found=found, why=why)


def check_cpu_topology(examination: Examination) -> Finding:
    """Whether the benchmark can have CPUs to itself."""
    topology = examination.facts.topology
    why = "the benchmark gets CPUs of its own, and everything else runs on the others"
    sets = split(topology)
    if sets.isolated:
        found = (
            f"{topology.describe()}; housekeeping {format_cpu_list(sets.housekeeping)},"
            f" benchmark {format_cpu_list(sets.benchmark)}"
        )
        return Finding(name="cpu-topology", status=Status.OK, found=found, why=why)
    fix = "give the machine two or more CPUs"
    if len(topology.online) > 1:
        online = format_cpu_list(topology.online)
        fix = f"allow this process more of the CPUs {online} (taskset, or the cpuset of its cgroup)"
    found = f"{topology.describe()}: the benchmark shares it with everything else"
    return Finding(name="cpu-topology", status=Status.UNUSABLE, found=found, why=why, fix=fix)


def host_notes(examination: Examination) -> tuple[Note, ...]:
    """Return what stops nothing and is good to know before trusting a result."""
    candidates = (_irqbalance, _virtual_host, _boot_isolation, _cgroup_version, _shared_cores, _slow_kvm)
    return tuple(note for candidate in candidates if (note := candidate(examination)) is not None)


def _irqbalance(examination: Examination) -> Note | None:
    if not examination.facts.irqbalance:
        return None
    advice = examination.root_command(["systemctl", "disable", "--now", "irqbalance"])
    return Note(name="irqbalance", text="irqbalance runs and moves interrupts onto benchmark CPUs", advice=advice)


def _virtual_host(examination: Examination) -> Note | None:
    virtual = examination.facts.virtualisation
    if not virtual.guest:
        return None
    named = f" ({virtual.vendor})" if virtual.vendor else ""
    return Note(
        name="virtual-host",
        text=f"this is a virtual machine{named}: its neighbours can disturb every result",
        advice="prefer bare metal for results that gate changes",
    )


def _boot_isolation(examination: Examination) -> Note | None:
    arguments = examination.facts.boot_arguments
    if not arguments or any(word in arguments for word in _ISOLATION) or not split(examination.facts.topology).isolated:
        return None
    cpus = format_cpu_list(split(examination.facts.topology).benchmark)
    return Note(
        name="boot-isolation",
        text="the kernel was not told to keep the scheduler and its tick off the benchmark CPUs",
        advice=f"add isolcpus={cpus} nohz_full={cpus} rcu_nocbs={cpus} to the kernel command line",
    )


def _cgroup_version(examination: Examination) -> Note | None:
    version = examination.facts.cgroups.version
    if version in ("v2", ""):
        return None
    return Note(
        name="cgroup-version",
        text=f"control groups are {version}: no isolated cpuset partition",
        advice="boot with systemd.unified_cgroup_hierarchy=1",
    )


def _shared_cores(examination: Examination) -> Note | None:
    topology = examination.facts.topology
    if not topology.has_smt:
        return None
    sets = split(topology)
    shared = {
        cpu.number
        for cpu in topology.cpus
        if cpu.number in sets.benchmark and set(cpu.siblings) & set(sets.housekeeping)
    } - set(sets.housekeeping)
    text = "hyper-threads are on: two benchmark CPUs may share a core"
    if shared:
        text = f"hyper-threads are on: benchmark CPU {format_cpu_list(shared)} shares a core with housekeeping"
    return Note(name="shared-cores", text=text, advice=f"{examination.root_command(['sh', '-c', _SMT_OFF])}")


_SMT_OFF = "echo off >/sys/devices/system/cpu/smt/control"


def _slow_kvm(examination: Examination) -> Note | None:
    facts = examination.facts
    release = tuple(int(part) for part in re.findall(r"\d+", facts.kernel_release)[:2])
    settled = facts.cgroups.favordynmods or facts.virtualisation.nx_huge_pages in ("N", "never")
    if not examination.kvm.usable or release < _SLOW_CREATE_FROM or settled or facts.machine != "x86_64":
        return None
    remount = examination.root_command(["mount", "-o", "remount,favordynmods", "/sys/fs/cgroup"])
    return Note(
        name="kvm-start",
        text=f"on kernel {facts.kernel_release} each start of a virtual machine waits for the kernel",
        advice=f"{remount}, or boot with kvm.nx_huge_pages=never",
    )
