"""QEMU's command line, as a pure function of what the box is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from metalmark.model import MIB
from metalmark.sandbox.port import Accelerator

SECCOMP: Final = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
"""System calls that QEMU does without: no new privileges, no new processes, no change of its own scheduling."""
CHANNEL: Final = "metalmark"
"""Name of the virtio port that the agent opens."""
TRANSLATION_CACHE_MIB: Final = 256
_MAC: Final = "52:54:00:6d:6d:01"


@dataclass(frozen=True, kw_only=True)
class Disk:
    """A raw image that the guest sees as a disk."""

    fd: int
    read_only: bool


@dataclass(frozen=True, kw_only=True)
class QemuMachine:
    """All that the command line depends on. Descriptors are numbers that QEMU inherits."""

    binary: str
    machine: str
    """``x86_64`` or ``aarch64``."""
    accelerator: Accelerator
    vcpus: int
    memory_bytes: int
    kernel: Path
    initramfs: Path
    command_line: str
    disks: tuple[Disk, ...]
    monitor_fd: int
    channel_fd: int
    network_fd: int | None = None
    console_fd: int | None = None
    """A file for what the guest writes to its serial console."""
    seccomp: bool = True
    name: str = "metalmark"


def qemu_command(box: QemuMachine) -> tuple[str, ...]:
    """Return the arguments; the guest's CPUs wait for ``cont``, so that they can be bound before they run."""
    words = [box.binary, "-name", box.name, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-S"]
    words += ["-M", _machine_type(box), "-accel", _accelerator(box), "-cpu", _cpu(box)]
    words += ["-smp", f"{box.vcpus},sockets=1,cores={box.vcpus},threads=1", "-m", f"{-(-box.memory_bytes // MIB)}M"]
    words += ["-kernel", str(box.kernel), "-initrd", str(box.initramfs), "-append", box.command_line]
    words += ["-chardev", f"socket,id=monitor,fd={box.monitor_fd}", "-mon", "chardev=monitor,mode=control"]
    words += ["-device", f"virtio-serial-{_transport(box)}", "-chardev", f"socket,id=channel,fd={box.channel_fd}"]
    words += ["-device", f"virtserialport,chardev=channel,name={CHANNEL}"]
    for number, disk in enumerate(box.disks):
        words += ["-add-fd", f"fd={disk.fd},set={disk.fd}"]
        words += _disk(number, disk, box)
    if box.network_fd is not None:
        # "socket" with a connected stream speaks passt's framing in every QEMU; "stream" came with 7.2.
        words += ["-netdev", f"socket,id=net,fd={box.network_fd}"]
        words += ["-device", f"virtio-net-{_transport(box)},netdev=net,mac={_MAC}"]
    if box.console_fd is not None:
        words += ["-add-fd", f"fd={box.console_fd},set={box.console_fd}"]
        words += ["-serial", "chardev:console", "-chardev", f"file,id=console,path={_fdset(box.console_fd)}"]
    if box.seccomp:
        words += ["-sandbox", SECCOMP]
    return tuple(words)


def machine_name(machine: str, *, network: bool) -> str:
    """Return QEMU's name of the machine that a box of an architecture is."""
    if machine == "aarch64":
        return "virt"
    # On the small machine of QEMU 10, Linux 6.12 hangs as soon as there is a network device, whatever it leads to.
    return "q35" if network else "microvm"


def console_name(machine: str) -> str:
    """Return the kernel's name of the serial console that ``--debug-boot`` attaches."""
    return "ttyAMA0" if machine == "aarch64" else "ttyS0"


def disk_names(count: int) -> tuple[str, ...]:
    """Return the guest's device names of disks, in the order in which they were given."""
    return tuple(f"/dev/vd{chr(ord('a') + index)}" for index in range(count))


def _machine_type(box: QemuMachine) -> str:
    if box.machine == "aarch64":
        return "virt,gic-version=" + ("host" if box.accelerator is Accelerator.KVM else "3")
    if machine_name(box.machine, network=box.network_fd is not None) == "q35":
        return "q35"
    # Without ACPI a kernel built without VIRTIO_MMIO_CMDLINE_DEVICES finds no device. rtc=off would cost two seconds.
    serial = "on" if box.console_fd is not None else "off"
    return f"microvm,acpi=on,isa-serial={serial}"


def _transport(box: QemuMachine) -> str:
    """Return how devices are attached: by PCI where the machine has it, else memory-mapped."""
    return "pci" if _machine_type(box) == "q35" else "device"


def _accelerator(box: QemuMachine) -> str:
    if box.accelerator is Accelerator.KVM:
        return "kvm"
    return f"tcg,thread=multi,tb-size={TRANSLATION_CACHE_MIB}"


def _cpu(box: QemuMachine) -> str:
    if box.accelerator is Accelerator.KVM:
        return "host"
    # QEMU's own pointer authentication hash is many times faster than the architected one under emulation.
    return "max,pauth-impdef=on" if box.machine == "aarch64" else "max"


def _disk(number: int, disk: Disk, box: QemuMachine) -> list[str]:
    name = f"disk{number}"
    node = {
        "driver": "raw",
        "node-name": name,
        "read-only": disk.read_only,
        "file": {"driver": "file", "filename": _fdset(disk.fd), "read-only": disk.read_only},
    }
    # "report": an error of the host's file system reaches the guest and QMP, instead of stopping the guest for good.
    report = "" if disk.read_only else ",werror=report,rerror=report"
    # Left to itself, "virt" hands out its buses from the last to the first, and the guest names the disks so.
    bus = f",bus=virtio-mmio-bus.{number}" if box.machine == "aarch64" else ""
    kind = f"virtio-blk-{_transport(box)}"
    return ["-blockdev", json.dumps(node), "-device", f"{kind},drive={name},serial={name}{bus}{report}"]


def _fdset(descriptor: int) -> str:
    """Return the name under which QEMU finds an inherited descriptor."""
    return f"/dev/fdset/{descriptor}"
