from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.runner.surroundings import topology

from metalmark.host import MemoryFacts
from metalmark.model import Demand, SandboxName, SandboxUnavailable, shortcomings
from metalmark.runner import proved_capabilities
from metalmark.runner.proved_capabilities import ProvedMachine, as_capabilities, prove
from metalmark.sandbox import Accelerator, Availability, Driver
from metalmark.system import Folders
from metalmark.testing.fake_sandbox import FakeDriver

pytestmark = pytest.mark.anyio
MEMORY = MemoryFacts(total_bytes=2**33, available_bytes=2**32, swap_bytes=0, limit_bytes=2**31)


class Probed(FakeDriver):
    """Says of itself what a test wants."""

    def __init__(self, name: SandboxName, accelerator: Accelerator | None) -> None:
        super().__init__()
        self._name, self._found = name, accelerator

    @property
    def name(self) -> SandboxName:
        return self._name

    async def probe(self) -> Availability:
        usable = self._found is not None
        return Availability(
            usable=usable, accelerator=self._found, reason="was tried", hint="" if usable else "mend it"
        )


KVM, TCG, NATIVE = Accelerator.KVM, Accelerator.TCG, Accelerator.NATIVE
QEMU, CONTAINER, FIRECRACKER = SandboxName.QEMU, SandboxName.CONTAINER, SandboxName.FIRECRACKER


async def proved(folder: Path, *drivers: Driver, allow_emulation: bool = False) -> ProvedMachine:
    places = Folders(state=folder, cache=folder, run=folder, config=folder)
    return await prove(
        list(drivers),
        machine="x86_64",
        topology=topology(4),
        memory=MEMORY,
        folders=places,
        allow_emulation=allow_emulation,
    )


@pytest.fixture(autouse=True)
def tools(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    there = {"passt", "pasta"}

    async def starts(tool: str) -> bool:
        return tool in there

    monkeypatch.setattr(proved_capabilities, "_starts", starts)
    return there


async def test_what_worked_is_said(tmp_path: Path) -> None:
    machine = await proved(
        tmp_path,
        Probed(FIRECRACKER, None),
        Probed(QEMU, KVM),
        Probed(CONTAINER, NATIVE),
        Probed(SandboxName.NONE, NATIVE),
    )
    said = machine.capabilities
    assert said.sandboxes == ("qemu", "container", "none")
    assert (said.os, said.architecture, said.vcpus, said.memory_bytes) == ("linux", "x86_64", 4, 2**31)
    assert said.disk_bytes
    assert said.network is True
    assert machine.why_not == {FIRECRACKER: "was tried; mend it"}
    assert as_capabilities(said).sandboxes == {"qemu", "container", ""}


async def test_emulation_counts_only_when_it_is_allowed(tmp_path: Path) -> None:
    drivers = Probed(QEMU, TCG), Probed(CONTAINER, NATIVE)
    machine = await proved(tmp_path, *drivers)
    assert machine.capabilities.sandboxes == ("container",)
    assert "--allow-emulation" in machine.why_not[QEMU]
    demand = Demand(os="linux", architecture="x86_64", sandbox="microvm", vcpus=1, memory_bytes=1, disk_bytes=1)
    assert shortcomings(as_capabilities(machine.capabilities), demand)
    allowed = await proved(tmp_path, *drivers, allow_emulation=True)
    assert allowed.capabilities.sandboxes == ("qemu", "container")
    assert not shortcomings(as_capabilities(allowed.capabilities), demand)


async def test_machine_that_can_do_nothing_is_told_why(tmp_path: Path) -> None:
    with pytest.raises(SandboxUnavailable, match="firecracker: was tried; mend it; qemu: it only emulates") as caught:
        await proved(tmp_path, Probed(FIRECRACKER, None), Probed(QEMU, TCG))
    assert "doctor" in caught.value.hint


@pytest.mark.parametrize(
    ("missing", "drivers", "network"),
    [
        ("passt", (Probed(QEMU, KVM), Probed(CONTAINER, NATIVE)), False),
        ("passt", (Probed(CONTAINER, NATIVE),), True),
        ("pasta", (Probed(CONTAINER, NATIVE),), False),
        ("", (Probed(FIRECRACKER, KVM),), False),
    ],
)
async def test_network_needs_the_tool_of_every_sandbox(
    tmp_path: Path, tools: set[str], missing: str, drivers: tuple[Driver, ...], network: bool
) -> None:
    tools.discard(missing)
    assert (await proved(tmp_path, *drivers)).capabilities.network is network


async def test_chosen_sandbox_is_the_driver_that_was_tried(tmp_path: Path) -> None:
    qemu, container = Probed(QEMU, TCG), Probed(CONTAINER, NATIVE)
    machine = await proved(tmp_path, qemu, container)
    choice = await machine.choose(CONTAINER)
    assert choice.driver is container
    assert choice.accelerator is NATIVE
    for name, why in ((QEMU, "--allow-emulation"), (SandboxName.NONE, "not allowed"), (None, "not asked")):
        with pytest.raises(SandboxUnavailable, match=why):
            await machine.choose(name)


async def test_facts_say_of_every_sandbox_what_was_found(tmp_path: Path) -> None:
    machine = await proved(tmp_path, Probed(QEMU, TCG), Probed(CONTAINER, NATIVE))
    assert machine.facts["sandboxes"]["container"] == {"used": True, "accelerator": "native", "reason": "was tried"}
    assert machine.facts["sandboxes"]["qemu"]["used"] is False
