"""Which sandbox a run gets."""

from __future__ import annotations

import itertools

import pytest

from metalmark.model import SandboxName, SandboxUnavailable
from metalmark.sandbox import Accelerator, Availability, DriverSettings, choice, choose
from metalmark.system import folders
from metalmark.testing.fake_sandbox import FakeDriver

SETTINGS = DriverSettings(folders=folders({"METALMARK_HOME": "/nowhere"}))


def works(accelerator: Accelerator) -> Availability:
    return Availability(usable=True, accelerator=accelerator, reason=f"works with {accelerator}")


def fails() -> Availability:
    return Availability(usable=False, reason="it is not there", hint="install it")


class Probed(FakeDriver):
    """A driver that answers as the test says."""

    def __init__(self, name: SandboxName, answer: Availability) -> None:
        super().__init__()
        self._name, self._answer = name, answer

    @property
    def name(self) -> SandboxName:
        return self._name

    async def probe(self) -> Availability:
        return self._answer


def on_a_machine(monkeypatch: pytest.MonkeyPatch, answers: dict[SandboxName, Availability]) -> None:
    monkeypatch.setattr(choice, "make_driver", lambda name, settings: Probed(name, answers.get(name, fails())))


QEMU_ANSWERS = [works(Accelerator.KVM), works(Accelerator.TCG), fails()]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("firecracker", "qemu", "container"),
    list(itertools.product([works(Accelerator.KVM), fails()], QEMU_ANSWERS, [works(Accelerator.NATIVE), fails()])),
)
async def test_order_without_a_wish(
    monkeypatch: pytest.MonkeyPatch, firecracker: Availability, qemu: Availability, container: Availability
) -> None:
    on_a_machine(
        monkeypatch,
        {
            SandboxName.FIRECRACKER: firecracker,
            SandboxName.QEMU: qemu,
            SandboxName.CONTAINER: container,
            SandboxName.NONE: works(Accelerator.NATIVE),
        },
    )
    wanted = (
        SandboxName.FIRECRACKER if firecracker.usable
        else SandboxName.QEMU if qemu.accelerator is Accelerator.KVM
        else SandboxName.CONTAINER if container.usable
        else SandboxName.QEMU if qemu.usable
        else None
    )  # fmt: skip
    if wanted is None:
        with pytest.raises(SandboxUnavailable) as found:
            await choose(None, SETTINGS)
        assert all(name in found.value.why for name in ("firecracker", "qemu", "container"))
        return
    chosen = await choose(None, SETTINGS)
    assert chosen.name is wanted
    assert "works with" in chosen.reason


@pytest.mark.anyio
async def test_emulation_is_said_to_be_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_machine(monkeypatch, {SandboxName.QEMU: works(Accelerator.TCG)})
    assert "no measurement of this machine" in (await choose(None, SETTINGS)).reason


@pytest.mark.anyio
async def test_wish_is_met_or_refused_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_machine(monkeypatch, {SandboxName.NONE: works(Accelerator.NATIVE)})
    assert (await choose(SandboxName.NONE, SETTINGS)).name is SandboxName.NONE
    with pytest.raises(SandboxUnavailable, match="it is not there") as found:
        await choose(SandboxName.QEMU, SETTINGS)
    assert found.value.hint == "install it"
