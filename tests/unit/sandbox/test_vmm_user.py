"""Whom a VMM runs as."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from metalmark.sandbox.vmm_user import FIRST_UID, VmmUser, as_user, vmm_user

WHOLE = "         0          0 4294967295\n"


def proc_with(tmp_path: Path, ids: str) -> Path:
    (tmp_path / "self").mkdir()
    for name in ("uid_map", "gid_map"):
        (tmp_path / "self" / name).write_text(ids)
    return tmp_path


def test_an_ordinary_user_stays_who_it_is(tmp_path: Path) -> None:
    assert vmm_user("box", kvm_device=None, proc=proc_with(tmp_path, WHOLE), euid=1000) is None


def test_root_gives_each_box_a_user_that_nobody_is(tmp_path: Path) -> None:
    proc = proc_with(tmp_path, WHOLE)
    first = vmm_user("box-1", kvm_device=None, proc=proc, euid=0)
    second = vmm_user("box-2", kvm_device=None, proc=proc, euid=0)
    assert first is not None
    assert second is not None
    assert first.uid != second.uid
    assert min(first.uid, second.uid) >= FIRST_UID
    assert max(first.uid, second.uid) < 2**31
    assert first.groups == ()


def test_in_a_user_namespace_without_such_numbers_it_is_nobody(tmp_path: Path) -> None:
    proc = proc_with(tmp_path, "         0     100000      65536\n")
    assert vmm_user("box", kvm_device=None, proc=proc, euid=0) == VmmUser(uid=65534)


@pytest.mark.parametrize("mode", [0o660, 0o666])
def test_the_group_of_kvm_goes_along(tmp_path: Path, mode: int) -> None:
    device = tmp_path / "kvm"
    device.touch()
    device.chmod(mode)
    if os.geteuid() == 0:
        os.chown(device, 0, 107)
    gid = device.stat().st_gid
    found = vmm_user("box", kvm_device=device, proc=proc_with(tmp_path, WHOLE), euid=0)
    assert found is not None
    assert found.groups == (gid,)


def test_a_kvm_device_that_only_root_may_open_keeps_the_vmm_root(tmp_path: Path) -> None:
    device = tmp_path / "kvm"
    device.touch()
    device.chmod(0o600)
    assert vmm_user("box", kvm_device=device, proc=proc_with(tmp_path, WHOLE), euid=0) is None


def test_the_command_gives_up_everything_and_dies_with_its_parent() -> None:
    argv = as_user(VmmUser(uid=FIRST_UID, groups=(107,)), ("/usr/bin/qemu", "-S"))
    assert argv[0].endswith("/setpriv")
    assert {"--no-new-privs", "--bounding-set=-all", "--pdeathsig=KILL", "--groups=107"} <= set(argv)
    assert {f"--reuid={FIRST_UID}", f"--regid={FIRST_UID}"} <= set(argv)
    assert argv[argv.index("--") + 1 :] == ("/usr/bin/qemu", "-S")
    assert as_user(None, ("/usr/bin/qemu",)) == ("/usr/bin/qemu",)
