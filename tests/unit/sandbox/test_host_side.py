from __future__ import annotations

from pathlib import Path

from metalmark.model import Resources, RootfsMode
from metalmark.sandbox import BoxSpec
from metalmark.sandbox.furnished_root import etc_files
from metalmark.sandbox.host_side import limits_of


def _spec(*cpus: int, vcpus: int = 2) -> BoxSpec:
    return BoxSpec(
        name="b",
        root=Path("/r"),
        rootfs=RootfsMode.OVERLAY,
        workspace=Path("/w"),
        resources=Resources(vcpus=vcpus, memory_bytes=77, pids=5),
        cpus=cpus,
        hostname="box",
    )


def test_own_cpus_need_no_quota() -> None:
    limits = limits_of(_spec(4, 6))
    assert (limits.cpus, limits.cpu_quota, limits.memory_bytes, limits.pids) == ((4, 6), 0.0, 77, 5)


def test_without_as_many_cpus_time_is_shared_out() -> None:
    assert limits_of(_spec()).cpu_quota == 2.0
    assert limits_of(_spec(1, 2, 3)).cpu_quota == 2.0, "three CPUs are not three vCPUs"


def test_etc_names_the_box() -> None:
    files = etc_files(_spec(0))
    assert files["hostname"] == "box\n"
    assert "127.0.1.1\tbox\n" in files["hosts"]
    assert "resolv.conf" not in files, "without a network the image's own stays"
