"""The probe's guests: a few instructions each, run through raw ioctls of ``/dev/kvm``.

Numbers and layouts are those of ``linux/kvm.h`` (KVM API 12). x86-64: 2 MiB of memory at 0, long mode, one 2 MiB page.
No interrupt controller, because with one ``hlt`` would wait in the kernel. aarch64: memory at 1 GiB, translation off,
and a write to an address without memory as the end, for there is no ``hlt`` that exits.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import struct
from pathlib import Path
from typing import Final

from metalmark.system import monotonic_ns

_GET_API_VERSION: Final = 0xAE00
_CREATE_VM: Final = 0xAE01
_GET_VCPU_MMAP_SIZE: Final = 0xAE04
_CREATE_VCPU: Final = 0xAE41
_SET_USER_MEMORY_REGION: Final = 0x4020AE46
_SET_TSS_ADDR: Final = 0xAE47
_RUN: Final = 0xAE80
_SET_REGS: Final = 0x4090AE82
_GET_SREGS: Final = 0x8138AE83
_SET_SREGS: Final = 0x4138AE84
_SET_ONE_REG: Final = 0x4010AEAC
_ARM_VCPU_INIT: Final = 0x4020AEAE
_ARM_PREFERRED_TARGET: Final = 0x8020AEAF
_ARM_PC: Final = 0x6030000000100040

_API_VERSION: Final = 12
_MEMORY_BYTES: Final = 2 * 1024 * 1024
_CODE: Final = 0x1000
_TURNS: Final = 20_000
_MOST_EXITS: Final = 4
_EXITS: Final = {2: "IO", 5: "HLT", 6: "MMIO", 8: "SHUTDOWN", 9: "FAIL_ENTRY", 17: "INTERNAL_ERROR"}

X86_EXPECTED: Final = ("IO", "HLT")
ARM_EXPECTED: Final = ("MMIO",)


def x86_program(*, turns: int, cmpxchg16b: bool) -> bytes:
    """Return the x86-64 guest's code: the telling instruction, the loop, ``out`` and ``hlt``."""
    telling = bytes.fromhex("be00800000f0480fc70e") if cmpxchg16b else b""
    loop = b"\xb9" + struct.pack("<I", turns) + bytes.fromhex("ffc975fc")
    return telling + loop + bytes.fromhex("baf8030000b041eef4")


def arm_program(*, turns: int) -> bytes:
    """Return the aarch64 guest's code: the loop, then a store to 0x9000000, where there is no memory."""
    return struct.pack(
        "<7I",
        0xD2800000 | turns << 5,  # movz x0, #turns
        0xF1000400,  # subs x0, x0, #1
        0x54FFFFE1,  # b.ne to the line before
        0xD2A12001,  # movz x1, #0x900, lsl #16
        0x52800822,  # movz w2, #0x41
        0x39000022,  # strb w2, [x1]
        0x14000000,  # b to itself
    )


def run_probe_guests(device: Path) -> tuple[tuple[str, ...], tuple[str, ...], float]:
    """Run the guests of this machine's architecture.

    Returns:
        The exits of the telling guest, those it makes on a CPU, and the shortest of three times of the loop in ms.

    Raises:
        OSError: The device cannot be opened, or refuses a call.
    """
    arm = platform.machine() == "aarch64"
    kvm = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        if _ioctl(kvm, _GET_API_VERSION) != _API_VERSION:
            return ("OTHER_API",), X86_EXPECTED, 0.0
        if arm:
            exits, _ = _run_guest(kvm, arm_program(turns=1), arm=True)
            if exits != ARM_EXPECTED:
                return exits, ARM_EXPECTED, 0.0
            times = [_run_guest(kvm, arm_program(turns=_TURNS), arm=True)[1] for _ in range(3)]
            return exits, ARM_EXPECTED, min(times)
        exits, _ = _run_guest(kvm, x86_program(turns=1, cmpxchg16b=True), arm=False)
        if exits != X86_EXPECTED:
            return exits, X86_EXPECTED, 0.0
        program = x86_program(turns=_TURNS, cmpxchg16b=False)
        times = [_run_guest(kvm, program, arm=False)[1] for _ in range(3)]
        return exits, X86_EXPECTED, min(times)
    finally:
        os.close(kvm)


def _run_guest(kvm: int, program: bytes, *, arm: bool) -> tuple[tuple[str, ...], float]:
    machine = _ioctl(kvm, _CREATE_VM)
    memory = mmap.mmap(-1, _MEMORY_BYTES)
    origin = 0x40000000 if arm else 0
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    try:
        memory[_CODE : _CODE + len(program)] = program
        region = ctypes.create_string_buffer(struct.pack("<IIQQQ", 0, 0, origin, _MEMORY_BYTES, address))
        _ioctl(machine, _SET_USER_MEMORY_REGION, ctypes.addressof(region))
        if not arm:
            _ioctl(machine, _SET_TSS_ADDR, 0xFFFBD000)
        vcpu = _ioctl(machine, _CREATE_VCPU, 0)
        try:
            if arm:
                _set_up_arm(machine, vcpu, origin + _CODE)
            else:
                _set_up_x86(vcpu, memory)
            return _run_vcpu(kvm, vcpu)
        finally:
            os.close(vcpu)
    finally:
        os.close(machine)


def _run_vcpu(kvm: int, vcpu: int) -> tuple[tuple[str, ...], float]:
    with mmap.mmap(vcpu, _ioctl(kvm, _GET_VCPU_MMAP_SIZE)) as shared:
        exits: list[str] = []
        start = monotonic_ns()
        while len(exits) < _MOST_EXITS:
            _ioctl(vcpu, _RUN)
            reason = int.from_bytes(shared[8:12], "little")
            exits.append(_EXITS.get(reason, f"exit {reason}"))
            if exits[-1] != "IO":
                break
        return tuple(exits), (monotonic_ns() - start) / 1e6


def _set_up_x86(vcpu: int, memory: mmap.mmap) -> None:
    """Long mode at once: page tables at 0x2000, flat segments, CR0, CR4, EFER."""
    memory[0x2000:0x2008] = struct.pack("<Q", 0x3003)
    memory[0x3000:0x3008] = struct.pack("<Q", 0x4003)
    memory[0x4000:0x4008] = struct.pack("<Q", 0x83)
    special = ctypes.create_string_buffer(0x138)
    _ioctl(vcpu, _GET_SREGS, ctypes.addressof(special))
    code = struct.pack("<QIH10B", 0, 0xFFFFFFFF, 8, 11, 1, 0, 0, 1, 1, 1, 0, 0, 0)
    data = struct.pack("<QIH10B", 0, 0xFFFFFFFF, 16, 3, 1, 0, 1, 1, 0, 1, 0, 0, 0)
    raw = bytearray(special.raw)
    raw[0:24] = code
    for segment in range(1, 6):
        raw[segment * 24 : (segment + 1) * 24] = data
    struct.pack_into("<Q", raw, 224, 0x80050033)  # CR0
    struct.pack_into("<Q", raw, 240, 0x2000)  # CR3
    struct.pack_into("<Q", raw, 248, 0x20)  # CR4: PAE
    struct.pack_into("<Q", raw, 264, 0x500)  # EFER: LME, LMA
    special = ctypes.create_string_buffer(bytes(raw), len(raw))
    _ioctl(vcpu, _SET_SREGS, ctypes.addressof(special))
    general = ctypes.create_string_buffer(struct.pack("<18Q", *([0] * 6), 0x1000, *([0] * 9), _CODE, 2))
    _ioctl(vcpu, _SET_REGS, ctypes.addressof(general))


def _set_up_arm(machine: int, vcpu: int, entry: int) -> None:
    target = ctypes.create_string_buffer(32)
    _ioctl(machine, _ARM_PREFERRED_TARGET, ctypes.addressof(target))
    _ioctl(vcpu, _ARM_VCPU_INIT, ctypes.addressof(target))
    value = ctypes.create_string_buffer(struct.pack("<Q", entry))
    register = ctypes.create_string_buffer(struct.pack("<QQ", _ARM_PC, ctypes.addressof(value)))
    _ioctl(vcpu, _SET_ONE_REG, ctypes.addressof(register))


_libc = ctypes.CDLL(None, use_errno=True)
# fcntl.ioctl cannot pass an address or KVM_SET_TSS_ADDR's value.
_libc.ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong)


def _ioctl(descriptor: int, request: int, argument: int = 0) -> int:
    result = int(_libc.ioctl(descriptor, request, argument))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
