"""Which sandbox a run gets.

The order, unless the user asks for one: Firecracker under KVM, QEMU under KVM, a container, QEMU emulating. ``none`` is
never chosen, only asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from metalmark.model import SandboxName, SandboxUnavailable
from metalmark.sandbox.kvm import KvmProbe
from metalmark.sandbox.port import Accelerator, Availability, Driver
from metalmark.sandbox.settings import DriverSettings

_ORDER: Final = (
    (SandboxName.FIRECRACKER, (Accelerator.KVM,)),
    (SandboxName.QEMU, (Accelerator.KVM,)),
    (SandboxName.CONTAINER, (Accelerator.NATIVE,)),
    (SandboxName.QEMU, (Accelerator.TCG,)),
)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A driver that works here, and why it was chosen."""

    driver: Driver
    name: SandboxName
    accelerator: Accelerator | None
    reason: str
    """A sentence for the reader of a result."""


def make_driver(name: SandboxName, settings: DriverSettings, *, kvm: KvmProbe | None = None) -> Driver:
    """Return the driver of a sandbox, which may or may not work here.

    Args:
        name: Which.
        settings: What it is told of this installation.
        kvm: A probe of KVM that was made before; None: the driver makes one when it needs it.
    """
    # Each driver brings in what only it needs.
    match name:
        case SandboxName.FIRECRACKER:
            from metalmark.sandbox.firecracker import FirecrackerDriver  # noqa: PLC0415

            return FirecrackerDriver(settings, kvm=kvm)
        case SandboxName.QEMU:
            from metalmark.sandbox.qemu import QemuDriver  # noqa: PLC0415

            return QemuDriver(settings, kvm=kvm)
        case SandboxName.CONTAINER:
            from metalmark.sandbox.container import ContainerDriver  # noqa: PLC0415

            return ContainerDriver(settings)
        case SandboxName.NONE:
            from metalmark.sandbox.none import NoneDriver  # noqa: PLC0415

            return NoneDriver(settings)


async def choose(requested: SandboxName | None, settings: DriverSettings) -> Choice:
    """Return the sandbox that was asked for, or the first of the order that works here.

    Raises:
        SandboxUnavailable: It does not work here, or none does; says why, and what would mend it.
    """
    if requested is not None:
        driver = make_driver(requested, settings)
        return asked_for(driver, await driver.probe())
    drivers: dict[SandboxName, Driver] = {}
    found: dict[SandboxName, Availability] = {}
    for name, accelerators in _ORDER:
        if name not in found:
            drivers[name] = make_driver(name, settings)
            found[name] = await drivers[name].probe()
        if found[name].usable and found[name].accelerator in accelerators:
            return Choice(
                driver=drivers[name], name=name, accelerator=found[name].accelerator, reason=reason_of(name, found)
            )
    raise none_works(found)


def asked_for(driver: Driver, found: Availability) -> Choice:
    """Return the choice of a sandbox that the user named.

    Raises:
        SandboxUnavailable: It does not work here.
    """
    if not found.usable:
        raise SandboxUnavailable(
            f"sandbox {driver.name} does not work here",
            why=found.reason,
            hint=found.hint or "see `metalmark host doctor`, or leave --sandbox out",
        )
    return Choice(driver=driver, name=driver.name, accelerator=found.accelerator, reason=f"asked for; {found.reason}")


def reason_of(name: SandboxName, found: Mapping[SandboxName, Availability]) -> str:
    """Say why a sandbox was chosen: what it is, and why none of those before it in the order."""
    passed = [f"{other}: {_why_not(answer)}" for other, answer in found.items() if other is not name]
    if name is SandboxName.QEMU and found[name].accelerator is Accelerator.TCG:
        passed.append("what is emulated is no measurement of this machine")
    return "; ".join([found[name].reason, *passed])


def none_works(found: Mapping[SandboxName, Availability]) -> SandboxUnavailable:
    """Return the error that names every sandbox and what is wrong with it."""
    return SandboxUnavailable(
        "no sandbox works on this machine",
        why="; ".join(f"{name}: {_why_not(answer)}" for name, answer in found.items()),
        hint="run `metalmark host setup`, then `metalmark host doctor`",
    )


def _why_not(answer: Availability) -> str:
    if answer.usable and answer.accelerator is Accelerator.TCG:
        return f"only emulating ({answer.reason})"
    return answer.reason
