"""QEMU's arguments."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from metalmark.model import MIB
from metalmark.sandbox import Accelerator
from metalmark.sandbox.qemu_command import Disk, QemuMachine, disk_names, qemu_command

BOX = QemuMachine(
    binary="/usr/bin/qemu-system-x86_64",
    machine="x86_64",
    accelerator=Accelerator.TCG,
    vcpus=2,
    memory_bytes=512 * MIB,
    kernel=Path("/k/image"),
    initramfs=Path("/c/a.cpio"),
    command_line="quiet -- init",
    disks=(Disk(fd=5, read_only=True), Disk(fd=6, read_only=False)),
    monitor_fd=7,
    channel_fd=9,
)


def after(argv: tuple[str, ...], flag: str) -> list[str]:
    return [argv[index + 1] for index, word in enumerate(argv) if word == flag]


def test_microvm_with_acpi_and_paused() -> None:
    argv = qemu_command(BOX)
    assert argv[0] == BOX.binary
    assert after(argv, "-M") == ["microvm,acpi=on,isa-serial=off"]
    assert "rtc=off" not in " ".join(argv)
    assert after(argv, "-smp") == ["2,sockets=1,cores=2,threads=1"]
    assert after(argv, "-m") == ["512M"]
    assert {"-S", "-nodefaults", "-no-user-config", "-no-reboot"} <= set(argv)


def test_measured_run_has_neither_serial_port_nor_network() -> None:
    argv = qemu_command(BOX)
    assert "-serial" not in argv
    assert "-netdev" not in argv


def test_debug_boot_attaches_a_console() -> None:
    argv = qemu_command(replace(BOX, console_fd=11))
    assert after(argv, "-serial") == ["chardev:console"]
    assert "file,id=console,path=/dev/fdset/11" in after(argv, "-chardev")
    assert "fd=11,set=11" in after(argv, "-add-fd")
    assert after(argv, "-M") == ["microvm,acpi=on,isa-serial=on"]


def test_disks_in_order_by_descriptor_and_errors_reported() -> None:
    argv = qemu_command(BOX)
    nodes = [json.loads(text) for text in after(argv, "-blockdev")]
    assert [node["file"]["filename"] for node in nodes] == ["/dev/fdset/5", "/dev/fdset/6"]
    assert after(argv, "-add-fd") == ["fd=5,set=5", "fd=6,set=6"]
    assert [node["read-only"] for node in nodes] == [True, False]
    devices = [text for text in after(argv, "-device") if text.startswith("virtio-blk")]
    assert "werror=report" not in devices[0]
    assert "werror=report" in devices[1]
    assert disk_names(2) == ("/dev/vda", "/dev/vdb")


def test_channel_and_monitor_are_inherited_sockets() -> None:
    argv = qemu_command(BOX)
    assert "socket,id=monitor,fd=7" in after(argv, "-chardev")
    assert "socket,id=channel,fd=9" in after(argv, "-chardev")
    assert "virtserialport,chardev=channel,name=metalmark" in after(argv, "-device")


def test_kvm_uses_the_hosts_cpu_and_tcg_does_not() -> None:
    assert after(qemu_command(replace(BOX, accelerator=Accelerator.KVM)), "-cpu") == ["host"]
    assert after(qemu_command(replace(BOX, accelerator=Accelerator.KVM)), "-accel") == ["kvm"]
    assert after(qemu_command(BOX), "-cpu") == ["max"]


def test_aarch64_is_a_virt_machine() -> None:
    argv = qemu_command(replace(BOX, machine="aarch64", network_fd=11))
    assert after(argv, "-M") == ["virt,gic-version=3"]
    assert after(argv, "-netdev") == ["socket,id=net,fd=11"]


def test_seccomp_filter_unless_this_qemu_has_none() -> None:
    assert "spawn=deny" in after(qemu_command(BOX), "-sandbox")[0]
    assert "-sandbox" not in qemu_command(replace(BOX, seccomp=False))


def test_network_takes_a_machine_with_pci_and_all_devices_with_it() -> None:
    argv = qemu_command(replace(BOX, network_fd=11))
    assert after(argv, "-M") == ["q35"]
    devices = [text.split(",")[0] for text in after(argv, "-device")]
    assert devices == ["virtio-serial-pci", "virtserialport", "virtio-blk-pci", "virtio-blk-pci", "virtio-net-pci"]
