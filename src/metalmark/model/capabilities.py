"""What a runner can do, what a spec asks for, and whether the one covers the other."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What a spec asks of the machine that runs its jobs. The words are those of the wire."""

    os: str
    architecture: str
    sandbox: str | None
    """``firecracker``, ``qemu``, ``container``, ``microvm`` (either of the first two), or None for no sandbox."""
    vcpus: int
    memory_bytes: int
    disk_bytes: int
    network: bool = False


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a runner's probes proved. None where it did not say, which is taken as enough."""

    os: str | None = None
    architecture: str | None = None
    sandboxes: frozenset[str] = frozenset()
    """Names of sandboxes that worked; the empty string stands for running without one."""
    vcpus: int | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    network: bool | None = None
    public: bool = False
    """Whether this is a public runner, which gets images of our own registry only."""


_MICROVMS = frozenset({"firecracker", "qemu"})
_PUBLIC_SANDBOXES = frozenset({"firecracker", ""})


def public_runner(*, os: str | None = None, architecture: str | None = None) -> Capabilities:
    """Return what a public runner is taken to be able to do: it says nothing but its platform, if that."""
    return Capabilities(os=os, architecture=architecture, sandboxes=_PUBLIC_SANDBOXES, public=True)


def sandboxes_for(sandbox: str | None) -> frozenset[str]:
    """Return the sandboxes of which one has to work for a spec."""
    if sandbox is None:
        return frozenset({""})
    return _MICROVMS if sandbox == "microvm" else frozenset({sandbox})


def shortcomings(capabilities: Capabilities, demand: Demand) -> tuple[str, ...]:
    """Return what a runner lacks for a spec, each as a phrase with both values; empty when it can serve it."""
    found: list[str] = []
    for what, has, wants in (
        ("operating system", capabilities.os, demand.os),
        ("architecture", capabilities.architecture, demand.architecture),
    ):
        if has is not None and has != wants:
            found.append(f"{what} is {has}, not {wants}")
    wanted = sandboxes_for(demand.sandbox)
    if capabilities.public and demand.sandbox is not None and demand.sandbox != "firecracker":
        found.append(f"a public runner is not offered the sandbox {demand.sandbox}")
    elif not wanted & capabilities.sandboxes:
        found.append("sandbox " + (" or ".join(sorted(wanted)) or "none") + " did not work there")
    for what, most, needed in (
        ("vCPUs", capabilities.vcpus, demand.vcpus),
        ("bytes of memory", capabilities.memory_bytes, demand.memory_bytes),
        ("bytes of disk", capabilities.disk_bytes, demand.disk_bytes),
    ):
        if most is not None and most < needed:
            found.append(f"{most} {what}, not {needed}")
    if demand.network and capabilities.network is False:
        found.append("no network for the sandbox")
    return tuple(found)
