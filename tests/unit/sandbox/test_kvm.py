"""What a KVM probe means."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import pytest

from metalmark.model import PhaseTimeout
from metalmark.sandbox import kvm
from metalmark.sandbox.kvm import KvmState, judge, probe_kvm, refused
from metalmark.sandbox.kvm_guest import arm_program, x86_program
from metalmark.system import Completed

EXPECTED = ("IO", "HLT")


def test_guest_that_ran_at_speed_is_ok() -> None:
    assert judge(EXPECTED, expected=EXPECTED, loop_ms=0.02).state is KvmState.OK


@pytest.mark.parametrize("exits", [("INTERNAL_ERROR",), (), ("IO", "SHUTDOWN"), ("exit 99",)])
def test_guest_that_ended_otherwise_is_emulated(exits: tuple[str, ...]) -> None:
    found = judge(exits, expected=EXPECTED, loop_ms=0.0)
    assert found.state is KvmState.EMULATED
    assert not found.usable


def test_slow_loop_is_emulated_though_it_ran() -> None:
    found = judge(EXPECTED, expected=EXPECTED, loop_ms=32.5)
    assert found.state is KvmState.EMULATED
    assert "32.5 ms" in found.reason


def test_no_right_to_open_names_the_group() -> None:
    found = refused(PermissionError(errno.EACCES, "Permission denied", "/dev/kvm"), Path("/dev/kvm"))
    assert found.state is KvmState.NO_PERMISSION
    assert "usermod -aG kvm" in found.hint


def test_device_without_driver_is_absent_and_refused_call_is_not() -> None:
    assert refused(OSError(errno.ENODEV, "No such device", "/dev/kvm"), Path("/dev/kvm")).state is KvmState.ABSENT
    assert refused(OSError(errno.EINVAL, "Invalid argument"), Path("/dev/kvm")).state is KvmState.EMULATED


@pytest.mark.anyio
async def test_missing_device_is_absent(tmp_path: Path) -> None:
    assert (await probe_kvm(tmp_path / "kvm")).state is KvmState.ABSENT


@pytest.mark.anyio
async def test_probe_that_hangs_is_emulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(*args: object, **kwargs: object) -> Completed:
        raise PhaseTimeout("probe", 2.0)

    monkeypatch.setattr(kvm, "run", hang)
    (tmp_path / "kvm").touch()
    found = await probe_kvm(tmp_path / "kvm")
    assert found.state is KvmState.EMULATED
    assert "2 s" in found.reason


@pytest.mark.anyio
@pytest.mark.parametrize("answer", [b"", b"[]", b'{"state": "splendid"}', b"not json"])
async def test_probe_without_an_answer_is_emulated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    async def crash(*args: object, **kwargs: object) -> Completed:
        return Completed(argv=(sys.executable,), returncode=-11, stdout=answer, stderr=b"boom\n")

    monkeypatch.setattr(kvm, "run", crash)
    (tmp_path / "kvm").touch()
    assert (await probe_kvm(tmp_path / "kvm")).state is KvmState.EMULATED


def test_x86_program_is_the_documented_bytes() -> None:
    code = x86_program(turns=3, cmpxchg16b=True)
    assert code.hex() == "be00800000f0480fc70eb903000000ffc975fcbaf8030000b041eef4"
    assert x86_program(turns=3, cmpxchg16b=False) == code[10:]


def test_arm_program_counts_its_turns() -> None:
    words = arm_program(turns=20_000)
    assert int.from_bytes(words[:4], "little") >> 5 & 0xFFFF == 20_000
    assert len(words) == 28
