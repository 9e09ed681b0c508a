"""Is KVM usable? Found out by running a guest, never by looking at ``/dev/kvm``.

A hypervisor may hand out a ``/dev/kvm`` that emulates each guest instruction. It opens, every set-up call works, and a
real kernel dies half a minute into its boot at the first instruction that the emulator lacks. So a guest of a few
instructions is run that includes one which such emulators are known to lack (``lock cmpxchg16b``, which Linux's slab
allocator needs), and a loop that takes microseconds on a CPU and tens of milliseconds in an emulator.

The guest runs in a process of its own (``python -m metalmark.sandbox.kvm``), because a hostile or broken ``/dev/kvm``
can block a thread for good.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from metalmark.model import PhaseTimeout, ToolMissing
from metalmark.system import in_thread, run

PROBE_LIMIT_S: Final = 2.0
_LOOP_LIMIT_MS: Final = 5.0
"""20,000 turns take 0.02 ms on a CPU, about 30 ms in an emulator; nothing real is in between."""

_PROBE: Final = ("-P", "-m", "metalmark.sandbox.kvm")
"""-P: no module of the folder that the user happens to be in, which may hold a stranger's files, is imported."""


class KvmState(StrEnum):
    """What a probe found."""

    ABSENT = "absent"
    NO_PERMISSION = "no_permission"
    EMULATED = "emulated"
    """A guest started, and its instructions are emulated or fail: of no use, whatever the device promises."""
    OK = "ok"


@dataclass(frozen=True, kw_only=True)
class KvmProbe:
    """The answer, why, and what to do about it."""

    state: KvmState
    reason: str
    hint: str = ""

    @property
    def usable(self) -> bool:
        """Whether guests run under KVM here."""
        return self.state is KvmState.OK


async def probe_kvm(device: Path = Path("/dev/kvm"), *, limit_s: float = PROBE_LIMIT_S) -> KvmProbe:
    """Run the probe guest and say what came of it. Ends within ``limit_s``, whatever the device does."""
    if not await in_thread(device.exists):
        return KvmProbe(
            state=KvmState.ABSENT,
            reason=f"{device} does not exist",
            hint="load kvm_intel or kvm_amd, switch virtualisation on in the firmware, or allow nested virtualisation",
        )
    try:
        completed = await run([sys.executable, *_PROBE, str(device)], timeout_s=limit_s)
    except PhaseTimeout:
        return KvmProbe(state=KvmState.EMULATED, reason=f"a guest of ten instructions did not end in {limit_s:g} s")
    except ToolMissing as error:
        return KvmProbe(state=KvmState.ABSENT, reason=error.found, hint=error.hint)
    try:
        found = json.loads(completed.stdout)
        return KvmProbe(state=KvmState(found["state"]), reason=str(found["reason"]), hint=str(found["hint"]))
    except (ValueError, KeyError, TypeError):
        said = completed.error_text.rpartition("\n")[2]
        return KvmProbe(
            state=KvmState.EMULATED,
            reason=f"the probe of {device} ended with {completed.returncode} and no answer: {said}",
        )


def judge(exits: tuple[str, ...], *, expected: tuple[str, ...], loop_ms: float) -> KvmProbe:
    """Say what a guest that ran means.

    Args:
        exits: Names of the exits that the guest made, in order.
        expected: The exits that its program makes on a CPU.
        loop_ms: Shortest time of the counting loop.
    """
    if exits != expected:
        return KvmProbe(
            state=KvmState.EMULATED,
            reason=f"the probe guest ended with {', '.join(exits) or 'nothing'} instead of {', '.join(expected)}",
            hint="this hypervisor emulates /dev/kvm; use a machine with hardware virtualisation",
        )
    if loop_ms > _LOOP_LIMIT_MS:
        return KvmProbe(
            state=KvmState.EMULATED,
            reason=f"a loop of microseconds took {loop_ms:.1f} ms in the probe guest: its instructions are emulated",
            hint="this hypervisor emulates /dev/kvm; use a machine with hardware virtualisation",
        )
    return KvmProbe(state=KvmState.OK, reason=f"a guest ran under it (loop of {loop_ms:.3f} ms)")


def refused(error: OSError, device: Path) -> KvmProbe:
    """Say what an error on opening the device, or in a set-up call, means."""
    if isinstance(error, PermissionError):
        return KvmProbe(
            state=KvmState.NO_PERMISSION,
            reason=f"{device} may not be opened",
            hint='sudo usermod -aG kvm "$USER", then log in again',
        )
    if isinstance(error, FileNotFoundError):
        return KvmProbe(state=KvmState.ABSENT, reason=f"{device} does not exist")
    return KvmProbe(
        state=KvmState.EMULATED if error.filename is None else KvmState.ABSENT,
        reason=f"{device} cannot be used: {error.strerror}",
    )


def main(device: Path) -> int:
    """Run the guest in this process and write the answer as JSON."""
    # Only the probing child pays for ctypes.
    from metalmark.sandbox.kvm_guest import run_probe_guests  # noqa: PLC0415

    try:
        exits, expected, loop_ms = run_probe_guests(device)
        answer = judge(exits, expected=expected, loop_ms=loop_ms)
    except OSError as error:
        answer = refused(error, device)
    sys.stdout.write(json.dumps({"state": answer.state, "reason": answer.reason, "hint": answer.hint}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
