"""What this machine was proved to be able to do, for servers that match jobs against it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from pydantic import JsonValue

from metalmark.host import MemoryFacts, Topology
from metalmark.model import Capabilities, MetalmarkError, SandboxName, SandboxUnavailable
from metalmark.sandbox import Accelerator, Availability, Choice, Driver
from metalmark.system import Folders, find_tool, free_bytes, in_thread, run
from metalmark.wire import ProvedCapabilities

_NETWORK_TOOLS = {SandboxName.QEMU: "passt", SandboxName.CONTAINER: "pasta", SandboxName.NONE: "pasta"}
"""What gives a box of each sandbox its network; Firecracker's have none."""
_VERSION_S = 10.0


@dataclass(frozen=True, kw_only=True)
class ProvedMachine:
    """What the probes found."""

    capabilities: ProvedCapabilities
    found: Mapping[SandboxName, Availability]
    """The answer of each sandbox that was asked, also of those that are not used."""
    why_not: Mapping[SandboxName, str]
    """Why a sandbox is not used, for people."""
    drivers: Mapping[SandboxName, Driver]
    """Those that were asked. A box needs no further probe."""

    async def choose(self, requested: SandboxName | None) -> Choice:
        """Return a sandbox that was proved (`metalmark.runner.context.Sandboxes`).

        Raises:
            SandboxUnavailable: It is not used here.
        """
        if requested is None or requested not in self.found or requested in self.why_not:
            why = "it was not asked for" if requested is None else self.why_not.get(requested, "it is not allowed here")
            raise SandboxUnavailable(f"sandbox {requested} is not used by this runner", why=why)
        found = self.found[requested]
        return Choice(
            driver=self.drivers[requested],
            name=requested,
            accelerator=found.accelerator,
            reason=f"the job's spec wants it; {found.reason}",
        )

    @property
    def facts(self) -> dict[str, JsonValue]:
        """What a server is told beside the capabilities."""
        return {
            "sandboxes": {
                name.value: {
                    "used": name not in self.why_not,
                    "accelerator": None if found.accelerator is None else found.accelerator.value,
                    "reason": self.why_not.get(name, found.reason)[:1024],
                }
                for name, found in self.found.items()
            }
        }


async def prove(
    drivers: list[Driver],
    *,
    machine: str,
    topology: Topology,
    memory: MemoryFacts,
    folders: Folders,
    allow_emulation: bool,
) -> ProvedMachine:
    """Ask each sandbox whether it works.

    Args:
        drivers: Those that may be used.
        machine: Architecture, as ``uname -m`` has it.
        topology: The CPUs.
        memory: The memory.
        folders: Scratch disks are in the cache.
        allow_emulation: Whether what runs under emulation counts.

    Raises:
        SandboxUnavailable: None works; the error says why not.
    """
    found: dict[SandboxName, Availability] = {}
    why_not: dict[SandboxName, str] = {}
    for driver in drivers:
        answer = found[driver.name] = await driver.probe()
        if not answer.usable:
            why_not[driver.name] = f"{answer.reason}; {answer.hint}" if answer.hint else answer.reason
        elif answer.accelerator is Accelerator.TCG and not allow_emulation:
            why_not[driver.name] = f"it only emulates, which needs --allow-emulation ({answer.reason})"
    used = [name for name in found if name not in why_not]
    if not used:
        raise SandboxUnavailable(
            "no sandbox can be used on this machine",
            why="; ".join(f"{name}: {why}" for name, why in why_not.items()),
            hint="run `metalmark host doctor`",
        )
    capabilities = ProvedCapabilities.model_validate(
        {
            "os": "linux",
            "architecture": machine,
            "sandboxes": tuple(name.value for name in used),
            "vcpus": len(topology.allowed),
            "memory_bytes": memory.usable_bytes or None,
            "disk_bytes": await in_thread(free_bytes, folders.cache) or None,
            "network": await _has_network(used),
        }
    )
    return ProvedMachine(
        capabilities=capabilities,
        found=found,
        why_not=why_not,
        drivers={driver.name: driver for driver in drivers},
    )


def as_capabilities(proved: ProvedCapabilities) -> Capabilities:
    """Return what was proved in the words of the domain."""
    return Capabilities(
        os=proved.os,
        architecture=proved.architecture,
        sandboxes=frozenset("" if name == "none" else name for name in proved.sandboxes),
        vcpus=proved.vcpus,
        memory_bytes=proved.memory_bytes,
        disk_bytes=proved.disk_bytes,
        network=proved.network,
    )


async def _has_network(used: list[SandboxName]) -> bool:
    """Whether each sandbox that could give its boxes a network can do so: a server knows of one answer for all."""
    tools = {_NETWORK_TOOLS[name] for name in used if name in _NETWORK_TOOLS}
    return bool(tools) and all([await _starts(tool) for tool in sorted(tools)])


async def _starts(tool: str) -> bool:
    try:
        path = await in_thread(partial(find_tool, tool))
        return (await run([path, "--version"], timeout_s=_VERSION_S)).returncode == 0
    except MetalmarkError:
        return False
