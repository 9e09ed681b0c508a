from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from metalmark.runner import host_facts
from metalmark.runner.host_facts import (
    HostFacts,
    ToolFact,
    known_groups,
    kvm_device_facts,
    listed_groups,
    qemu_program,
    read_host_facts,
    user_name,
)
from metalmark.system import Completed, Folders

pytestmark = pytest.mark.anyio

GROUPS = "root:x:0:\nkvm:x:104:ada,bob\nbroken\n"
HEALTHY = {
    "etc/os-release": 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12"\n',
    "etc/group": GROUPS,
    "dev/kvm": "",
    "dev/loop-control": "",
    "dev/vsock": "",
    "dev/vhost-vsock": "",
    "proc/cpuinfo": "processor\t: 0\nflags\t\t: fpu vmx sse\n\nprocessor\t: 1\nflags\t\t: fpu vmx sse\n",
    "proc/meminfo": "MemTotal: 1024 kB\n",
    "proc/cmdline": "quiet isolcpus=1\n",
    "proc/filesystems": "nodev\tsysfs\n\text4\n\tsquashfs\nnodev\toverlay\n",
    "proc/self/ns/user": "",
    "proc/sys/user/max_user_namespaces": "1000\n",
    "proc/mounts": "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,favordynmods 0 0\n",
    "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n",
    "sys/module/kvm_intel/parameters/nested": "Y\n",
    "sys/module/kvm/parameters/nx_huge_pages": "N\n",
    "sys/devices/system/cpu/online": "0-1\n",
}


def plant(root: Path, *, without: tuple[str, ...] = (), **more: str) -> Path:
    for name, text in {**HEALTHY, **more}.items():
        if name not in without:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
    return root


async def read(root: Path, path: str = "") -> HostFacts:
    folders = Folders(state=root / "m/state", cache=root / "m/cache", run=root / "m/run", config=root / "m/config")
    return await read_host_facts(folders=folders, environment={"PATH": path}, root=root, uid=0, machine="x86_64")


async def test_a_healthy_host_is_read(tmp_path: Path) -> None:
    facts = await read(plant(tmp_path))
    assert facts.distribution.family == "debian"
    assert facts.kvm_device.exists
    assert facts.virtualisation.cpu_extension == "vmx"
    assert facts.virtualisation.nested == "Y"
    assert facts.virtualisation.nx_huge_pages == "N"
    assert not facts.virtualisation.guest
    assert facts.cgroups.version == "v2"
    assert facts.cgroups.favordynmods
    assert {"cpu", "memory", "pids"} <= facts.cgroups.controllers
    assert {"squashfs", "overlay", "ext4"} <= facts.filesystems
    assert facts.loop_control
    assert facts.loop_usable
    assert facts.user_namespaces.supported
    assert facts.user_namespaces.limit == 1000
    assert facts.user_namespaces.clone_allowed
    assert facts.vsock_host
    assert facts.topology.online == (0, 1)
    assert not facts.irqbalance
    assert "isolcpus=1" in facts.boot_arguments
    assert all(space.writable and space.free_bytes > 0 for space in facts.spaces)
    assert not facts.tool("runc").usable


@pytest.mark.parametrize(
    ("gone", "taken"),
    [
        ("dev/kvm", lambda facts: not facts.kvm_device.exists),
        ("dev/loop-control", lambda facts: not facts.loop_control),
        ("dev/vhost-vsock", lambda facts: not facts.vsock_host),
        ("proc/filesystems", lambda facts: "squashfs" not in facts.filesystems),
        ("sys/fs/cgroup/cgroup.controllers", lambda facts: facts.cgroups.version == ""),
        ("etc/os-release", lambda facts: facts.distribution.family == ""),
        ("proc/cpuinfo", lambda facts: facts.virtualisation.cpu_extension == ""),
        ("etc/group", lambda facts: "kvm" not in facts.known_groups),
    ],
)
async def test_what_is_taken_away_is_seen(tmp_path: Path, gone: str, taken: object) -> None:
    assert callable(taken)
    assert taken(await read(plant(tmp_path, without=(gone,))))


@pytest.mark.parametrize(
    ("name", "text", "seen"),
    [
        ("proc/sys/user/max_user_namespaces", "0\n", lambda facts: facts.user_namespaces.limit == 0),
        ("proc/sys/kernel/unprivileged_userns_clone", "0\n", lambda facts: not facts.user_namespaces.clone_allowed),
        (
            "proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1\n",
            lambda facts: facts.user_namespaces.apparmor_restricts,
        ),
        ("proc/77/comm", "irqbalance\n", lambda facts: facts.irqbalance),
        ("proc/cpuinfo", "flags : fpu hypervisor\n", lambda facts: facts.virtualisation.guest),
        ("sys/devices/virtual/dmi/id/sys_vendor", "QEMU\n", lambda facts: facts.virtualisation.vendor == "QEMU"),
        ("sys/fs/cgroup/cgroup.controllers", "cpu\n", lambda facts: "memory" not in facts.cgroups.controllers),
        ("sys/devices/system/cpu/online", "0\n", lambda facts: facts.topology.online == (0,)),
    ],
)
async def test_what_is_switched_is_seen(tmp_path: Path, name: str, text: str, seen: object) -> None:
    assert callable(seen)
    assert seen(await read(plant(tmp_path, **{name: text})))


async def test_the_first_version_of_control_groups_is_seen(tmp_path: Path) -> None:
    gone = ("sys/fs/cgroup/cgroup.controllers",)
    plant(
        tmp_path, without=gone, **{f"sys/fs/cgroup/{name}/tasks": "" for name in ("cpu,cpuacct", "memory", "systemd")}
    )
    facts = await read(tmp_path)
    assert facts.cgroups.version == "v1"
    assert facts.cgroups.controllers == {"cpu", "cpuacct", "memory"}
    plant(tmp_path, without=gone, **{"sys/fs/cgroup/unified/cgroup.controllers": ""})
    assert (await read(tmp_path)).cgroups.version == "hybrid"


async def test_modules_of_the_running_kernel_count_as_file_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.release", lambda: "6.1.0")
    plant(
        tmp_path,
        without=("proc/filesystems",),
        **{
            "lib/modules/6.1.0/modules.dep": "kernel/fs/squashfs/squashfs.ko.xz: kernel/lib/lz4.ko\n",
            "lib/modules/6.1.0/modules.builtin": "kernel/fs/overlayfs/overlay.ko\n",
        },
    )
    assert {"squashfs", "overlay"} <= (await read(tmp_path)).filesystems


def program(folder: Path, name: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("#!/bin/sh\n")
    (folder / name).chmod(0o755)


async def test_tools_are_looked_for_on_path_and_in_sbin_and_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {
        "runc": (0, b"runc version 1.1.5+ds1\nspec: 1.0.2", b""),
        "mke2fs": (0, b"", b"mke2fs 1.47.0 (5-Feb-2023)"),
        "passt": (0, b"passt unknown version\n<https://x/3.0.html>", b""),
        "crun": (127, b"", b"error while loading shared libraries: libyajl.so.2"),
    }

    async def run(argv: list[str], **_: object) -> Completed:
        returncode, stdout, stderr = answers[Path(argv[0]).name]
        return Completed(argv=tuple(argv), returncode=returncode, stdout=stdout, stderr=stderr)

    monkeypatch.setattr(host_facts, "run", run)
    root = plant(tmp_path / "root")
    program(tmp_path / "bin", "runc")
    program(tmp_path / "bin", "passt")
    program(tmp_path / "bin", "crun")
    (root / "usr").mkdir()
    program(root / "usr/sbin", "mke2fs")
    facts = await read(root, str(tmp_path / "bin"))
    assert facts.tool("runc") == ToolFact(name="runc", path=str(tmp_path / "bin/runc"), version="1.1.5+ds1")
    assert facts.tool("mke2fs").version == "1.47.0"
    assert facts.tool("mke2fs").path == str(root / "usr/sbin/mke2fs")
    assert facts.tool("passt").usable
    assert facts.tool("passt").version == ""
    assert "libyajl" in facts.tool("crun").error
    assert not facts.tool("crun").usable
    assert facts.tool("mksquashfs").path is None


def test_groups_and_users(tmp_path: Path) -> None:
    plant(tmp_path)
    assert known_groups(tmp_path) >= {"root", "kvm"}
    assert listed_groups(tmp_path, "bob") == {"kvm"}
    assert listed_groups(tmp_path, "bo") == frozenset()
    assert user_name(0) == "root"
    assert user_name(4_000_000_000) == "4000000000"


def test_the_device_has_a_group(tmp_path: Path) -> None:
    plant(tmp_path)
    found = kvm_device_facts(tmp_path)
    assert found.exists
    assert found.group
    assert found.readable == bool(os.access(tmp_path / "dev/kvm", os.R_OK | os.W_OK))
    assert stat.S_ISREG((tmp_path / "dev/kvm").stat().st_mode)


def test_each_machine_has_its_emulator() -> None:
    assert qemu_program("aarch64") == "qemu-system-aarch64"
