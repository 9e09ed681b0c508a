"""A host on which everything is in order, from which tests take one thing away at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from metalmark.host import LogicalCpu, MemoryFacts, Topology
from metalmark.model import GIB, SandboxName
from metalmark.runner.distribution import Distribution
from metalmark.runner.examination import AgentFact, Examination
from metalmark.runner.host_facts import (
    CgroupFacts,
    FolderSpace,
    HostFacts,
    KvmDeviceFacts,
    ToolFact,
    UserNamespaceFacts,
    VirtualisationFacts,
)
from metalmark.sandbox import Accelerator, Availability, GuestKernel, KvmProbe, KvmState

DEBIAN = Distribution(name="debian", version="12", codename="bookworm", title="Debian GNU/Linux 12 (bookworm)")
V2 = frozenset(("cpu", "cpuset", "io", "memory", "pids"))
TOOLS = {
    "qemu-system-x86_64": "7.2.22",
    "firecracker": "1.15.1",
    "runc": "1.1.5",
    "crun": "1.8.1",
    "mksquashfs": "4.5.1",
    "mke2fs": "1.47.0",
    "passt": "0.0",
    "setpriv": "2.38.1",
    "unshare": "2.38.1",
}


def machine(count: int, *, allowed: tuple[int, ...] = (), threads: int = 1) -> Topology:
    cpus = tuple(
        LogicalCpu(
            number=number,
            siblings=tuple(range(number - number % threads, number - number % threads + threads)),
        )
        for number in range(count)
    )
    return Topology(cpus=cpus, allowed=allowed or tuple(range(count)))


def guest_kernel(*, machine: str = "x86_64", builtin: frozenset[str] | None = None) -> GuestKernel:
    names = frozenset(("virtio_blk", "virtio_console", "squashfs", "overlay", "vmw_vsock_virtio_transport"))
    return GuestKernel(
        release="6.1.0-56-cloud-amd64",
        machine=machine,
        image=Path("/var/lib/metalmark/kernels/6.1.0-56-cloud-amd64/image"),
        modules=(),
        builtin=names if builtin is None else builtin,
    )


def healthy_facts(**changes: Any) -> HostFacts:
    facts = HostFacts(
        machine="x86_64",
        kernel_release="6.1.0-56-amd64",
        distribution=DEBIAN,
        uid=1000,
        user="ada",
        groups=frozenset(("ada", "kvm")),
        listed_groups=frozenset(("kvm",)),
        known_groups=frozenset(("root", "kvm", "ada")),
        kvm_device=KvmDeviceFacts(exists=True, readable=True, group="kvm"),
        virtualisation=VirtualisationFacts(guest=False, cpu_extension="vmx", nx_huge_pages="never"),
        tools={name: ToolFact(name=name, path=f"/usr/bin/{name}", version=version) for name, version in TOOLS.items()},
        cgroups=CgroupFacts(version="v2", controllers=V2, writable=True),
        filesystems=frozenset(("ext4", "squashfs", "overlay")),
        loop_control=True,
        loop_usable=True,
        user_namespaces=UserNamespaceFacts(supported=True, limit=15000),
        vsock_guest=True,
        vsock_host=True,
        spaces=tuple(
            FolderSpace(purpose=name, folder=Path("/var") / name, free_bytes=20 * GIB, writable=True)
            for name in ("state", "cache", "run")
        ),
        topology=machine(4),
        memory=MemoryFacts(total_bytes=8 * GIB, available_bytes=6 * GIB, swap_bytes=0, limit_bytes=None),
        irqbalance=False,
        boot_arguments="quiet isolcpus=1-3",
    )
    return replace(facts, **changes)


def examination(*, facts: dict[str, Any] | None = None, **changes: Any) -> Examination:
    healthy = Examination(
        facts=healthy_facts(**(facts or {})),
        kvm=KvmProbe(state=KvmState.OK, reason="a guest ran under it"),
        kernels=(guest_kernel(),),
        kernels_folder=Path("/var/lib/metalmark/kernels"),
        agent=AgentFact(path=Path("/usr/lib/metalmark-agent-x86_64")),
        sandboxes={
            SandboxName.QEMU: Availability(usable=True, accelerator=Accelerator.KVM, reason="QEMU 7.2 under KVM"),
            SandboxName.NONE: Availability(usable=False, reason="not allowed", hint="--danger-allow-no-sandbox"),
        },
    )
    return replace(healthy, **changes)


def without_tool(name: str, *, error: str = "", version: str = "") -> dict[str, Any]:
    tools = dict(healthy_facts().tools)
    tools[name] = ToolFact(
        name=name, path=f"/usr/bin/{name}" if error or version else None, error=error, version=version
    )
    return {"tools": tools}
