"""Decisions about what virtual machines need. Pure: an examination in, a finding out."""

from __future__ import annotations

import re

from metalmark.runner.examination import Examination
from metalmark.runner.finding import Finding, Status
from metalmark.runner.host_facts import qemu_program
from metalmark.sandbox import KvmState

_OLDEST_QEMU = (5, 2)
"""Its ``microvm`` machine is the first one that describes its devices through ACPI, as distributions' kernels need."""
_NETWORK_QEMU = (7, 2)
"""The first with ``-netdev stream``, by which passt is attached."""
_FIRECRACKER_DRIVER = "vmw_vsock_virtio_transport"


def check_kvm(examination: Examination) -> Finding:
    """Hardware virtualisation, as proved by a guest that ran."""
    probe = examination.kvm
    status = {KvmState.OK: Status.OK, KvmState.ABSENT: Status.MISSING}.get(probe.state, Status.UNUSABLE)
    device = examination.facts.kvm_device
    found = probe.reason
    fix = ""
    if probe.state is KvmState.NO_PERMISSION:
        fix = _join_group(examination, device.group or "kvm")
    elif status is not Status.OK:
        fix = probe.hint or "switch virtualisation on in the firmware, or use a machine that has it"
    return Finding(
        name="kvm",
        status=status,
        found=found,
        why="sandbox firecracker needs it; without it qemu emulates, which never measures this machine",
        fix=fix,
    )


def check_kvm_group(examination: Examination) -> Finding:
    """Membership of the group that owns ``/dev/kvm``."""
    facts = examination.facts
    group = facts.kvm_device.group if facts.kvm_device.group not in ("", "root") else "kvm"
    why = f"an ordinary user opens /dev/kvm as a member of group {group}"
    if facts.uid == 0:
        return Finding(name="kvm-group", status=Status.OK, found="root needs no membership", why=why)
    if group in facts.groups:
        return Finding(name="kvm-group", status=Status.OK, found=f"{facts.user} is in group {group}", why=why)
    if facts.kvm_device.readable:
        found = f"{facts.user} may open /dev/kvm without being in group {group}"
        return Finding(name="kvm-group", status=Status.OK, found=found, why=why)
    if group in facts.listed_groups:
        found = f"{facts.user} was added to group {group} after this session began"
        return Finding(name="kvm-group", status=Status.UNUSABLE, found=found, why=why, fix="log out and in again")
    if group not in facts.known_groups:
        fix = f"{examination.root_command(['groupadd', '--system', group])} && {_join_group(examination, group)}"
        return Finding(name="kvm-group", status=Status.MISSING, found=f"there is no group {group}", why=why, fix=fix)
    found = f"{facts.user} is not in group {group}"
    return Finding(name="kvm-group", status=Status.MISSING, found=found, why=why, fix=_join_group(examination, group))


def check_nested(examination: Examination) -> Finding:
    """Whether a virtual machine may itself run virtual machines."""
    facts, probe = examination.facts.virtualisation, examination.kvm
    why = "on a virtual machine, KVM works only when the machine below passes virtualisation on"
    below = facts.vendor or "its hypervisor has no name"
    if not facts.guest:
        return Finding(name="nested-virtualization", status=Status.OK, found="not a virtual machine", why=why)
    if probe.usable:
        found = f"a virtual machine ({below}), and KVM works in it"
        return Finding(name="nested-virtualization", status=Status.OK, found=found, why=why)
    fix = (
        "on the machine below: load kvm_intel or kvm_amd with nested=1 and give this machine the host's CPU model"
        " (-cpu host); in a cloud choose a type with nested virtualisation, or bare metal"
    )
    if probe.state is KvmState.EMULATED:
        found = f"a virtual machine ({below}) whose KVM is emulated"
        return Finding(name="nested-virtualization", status=Status.UNUSABLE, found=found, why=why, fix=fix)
    if facts.cpu_extension:
        found = f"a virtual machine ({below}) whose CPU has {facts.cpu_extension}: passed on"
        return Finding(name="nested-virtualization", status=Status.OK, found=found, why=why)
    found = f"a virtual machine ({below}) whose CPU shows no virtualisation"
    return Finding(name="nested-virtualization", status=Status.MISSING, found=found, why=why, fix=fix)


def check_qemu(examination: Examination) -> Finding:
    """QEMU for this machine, and that it starts."""
    facts = examination.facts
    program = qemu_program(facts.machine)
    tool = facts.tool(program)
    package = "qemu-system-arm" if facts.machine == "aarch64" else "qemu-system-x86"
    why = "sandbox qemu"
    fix = examination.install(package)
    if tool.path is None:
        return Finding(name="qemu", status=Status.MISSING, found=f"{program} is not installed", why=why, fix=fix)
    if tool.error:
        found = f"{tool.path} does not start: {tool.error}"
        reinstall = fix.replace(" install ", " install --reinstall ", 1)
        return Finding(name="qemu", status=Status.UNUSABLE, found=found, why=why, fix=reinstall)
    version = _version(tool.version)
    if version < _OLDEST_QEMU:
        found = f"{tool.path} is version {tool.version}, older than 5.2"
        fix = "use a distribution with QEMU 5.2 or later"
        return Finding(name="qemu", status=Status.UNUSABLE, found=found, why=why, fix=fix)
    found = f"{tool.path} {tool.version}"
    if version < _NETWORK_QEMU:
        found += " (--network needs 7.2)"
    return Finding(name="qemu", status=Status.OK, found=found, why=why)


def check_firecracker(examination: Examination) -> Finding:
    """Firecracker, and that it starts. Optional."""
    tool = examination.facts.tool("firecracker")
    why = "sandbox firecracker, the fastest one where KVM works; optional"
    if not examination.kvm.usable:
        why = "sandbox firecracker; optional, and of no use here before KVM works"
    fix = "metalmark host setup --with firecracker"
    if tool.path is None:
        return Finding(name="firecracker", status=Status.MISSING, found="it is not installed", why=why, fix=fix)
    if tool.error:
        found = f"{tool.path} does not start: {tool.error}"
        return Finding(name="firecracker", status=Status.UNUSABLE, found=found, why=why, fix=fix)
    return Finding(name="firecracker", status=Status.OK, found=f"{tool.path} {tool.version}", why=why)


def check_guest_kernel(examination: Examination) -> Finding:
    """A kernel that boxes can boot, and the drivers in it."""
    machine = examination.facts.machine
    why = "virtual machines boot it (sandboxes qemu and firecracker); it is never installed on the host"
    fix = "metalmark host setup"
    kernel = next((kernel for kernel in examination.kernels if kernel.machine == machine), None)
    if kernel is None:
        found = f"none for {machine} in {examination.kernels_folder}"
        return Finding(name="guest-kernel", status=Status.MISSING, found=found, why=why, fix=fix)
    has = kernel.builtin | {module.name for module in kernel.modules}
    if lacking := [name for name in ("virtio_blk", "virtio_console", "squashfs", "overlay") if name not in has]:
        found = f"{kernel.release} lacks {', '.join(lacking)}"
        return Finding(name="guest-kernel", status=Status.UNUSABLE, found=found, why=why, fix=fix)
    found = f"{kernel.release} in {kernel.image.parent}"
    if _FIRECRACKER_DRIVER not in has:
        found += " (no vsock in it: not for firecracker)"
    return Finding(name="guest-kernel", status=Status.OK, found=found, why=why)


def check_guest_agent(examination: Examination) -> Finding:
    """The guest agent's binary for this machine."""
    agent = examination.agent
    why = "the program that runs the benchmark inside every sandbox; it comes with Metalmark"
    if agent.path is None:
        fix = "pip install --force-reinstall metalmark (in a checkout: scripts/prepare)"
        return Finding(name="guest-agent", status=Status.MISSING, found=agent.error, why=why, fix=fix)
    return Finding(name="guest-agent", status=Status.OK, found=str(agent.path), why=why)


def check_vsock(examination: Examination) -> Finding:
    """The host's side of vsock, which none of the sandboxes needs."""
    why = (
        "nothing here needs it: Firecracker carries vsock over a unix socket and QEMU's channel is virtio-serial;"
        " it is for virtual machines of other programs"
    )
    if examination.facts.vsock_host:
        return Finding(name="vsock", status=Status.OK, found="/dev/vhost-vsock is there", why=why)
    fix = examination.root_command(["modprobe", "vhost_vsock"])
    return Finding(name="vsock", status=Status.MISSING, found="there is no /dev/vhost-vsock", why=why, fix=fix)


def _join_group(examination: Examination, group: str) -> str:
    return examination.root_command(["usermod", "-aG", group, examination.facts.user]) + ", then log in again"


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])
