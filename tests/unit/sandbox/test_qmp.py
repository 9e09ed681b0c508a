"""What QEMU's events mean for a box."""

from __future__ import annotations

from metalmark.model import BoxLost, NoSpace
from metalmark.sandbox.qmp import disk_failed, stopped


def test_internal_error_is_kvm_that_does_not_work() -> None:
    assert "KVM" in str(stopped("internal-error"))
    assert "state io-error" in str(stopped("io-error"))


def test_full_host_disk_is_no_space_and_other_write_errors_lose_the_box() -> None:
    assert isinstance(disk_failed({"operation": "write", "nospace": True}), NoSpace)
    told = {"operation": "write", "nospace": False, "reason": "No space left on device"}
    assert isinstance(disk_failed(told), NoSpace)
    found = disk_failed({"operation": "write", "nospace": False, "reason": "Input/output error"})
    assert isinstance(found, BoxLost)
    assert disk_failed({"operation": "read", "nospace": False}) is None
