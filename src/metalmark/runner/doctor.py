"""``metalmark host doctor``: reads the host, tries what can be tried, and judges every prerequisite.

Reading (`host_facts`) and trying (the sandboxes' own probes) happen here; the judgement is in the pure functions of the
``doctor_checks_…`` modules, one a line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from metalmark.model import MetalmarkError, SandboxName, format_bytes
from metalmark.runner import doctor_checks_container, doctor_checks_host, doctor_checks_vm
from metalmark.runner.examination import AgentFact, Examination
from metalmark.runner.finding import Diagnosis, Finding, SandboxFinding
from metalmark.runner.host_facts import read_host_facts
from metalmark.sandbox import (
    Availability,
    Driver,
    DriverSettings,
    installed_kernels,
    kernels_folder,
    probe_kvm,
)
from metalmark.system import in_thread

CHECKS: tuple[Callable[[Examination], Finding], ...] = (
    doctor_checks_vm.check_kvm,
    doctor_checks_vm.check_kvm_group,
    doctor_checks_vm.check_nested,
    doctor_checks_vm.check_qemu,
    doctor_checks_vm.check_firecracker,
    doctor_checks_vm.check_guest_kernel,
    doctor_checks_vm.check_guest_agent,
    doctor_checks_vm.check_vsock,
    doctor_checks_container.check_container_runtime,
    doctor_checks_container.check_cgroups,
    doctor_checks_container.check_squashfs_tools,
    doctor_checks_container.check_squashfs,
    doctor_checks_container.check_overlayfs,
    doctor_checks_container.check_ext4_tools,
    doctor_checks_container.check_loop_devices,
    doctor_checks_container.check_user_namespaces,
    doctor_checks_container.check_passt,
    doctor_checks_container.check_util_linux,
    doctor_checks_host.check_free_space,
    doctor_checks_host.check_cpu_topology,
)
"""In the order in which they are shown."""


_DANGER = "; no sandbox at all, so only with --danger-allow-no-sandbox"


async def examine(
    settings: DriverSettings,
    *,
    environment: Mapping[str, str],
    drivers: Sequence[Driver],
    find_agent: Callable[[str], Path],
    find_firecracker: Callable[[DriverSettings], Path | None],
    root: Path = Path("/"),
) -> Examination:
    """Read and try everything. Changes nothing on the host; bounded by the probes' own deadlines.

    Args:
        settings: What the sandboxes are told of this installation.
        environment: For PATH.
        drivers: The sandboxes to try.
        find_agent: Returns the guest agent's binary for a machine; raises `MetalmarkError` where there is none.
        find_firecracker: Returns Firecracker's binary where it is not on PATH, or None.
        root: Where ``/proc``, ``/sys``, ``/dev`` and ``/etc`` are looked for.
    """
    kernels = kernels_folder(settings.folders)
    facts = await read_host_facts(
        folders=settings.folders,
        environment=environment,
        root=root,
        machine=settings.machine,
        firecracker=find_firecracker(settings),
    )
    return Examination(
        facts=facts,
        kvm=await probe_kvm(settings.kvm_device),
        kernels=await in_thread(installed_kernels, kernels),
        kernels_folder=kernels,
        agent=_agent(find_agent, settings.machine),
        sandboxes={driver.name: await _probe(driver) for driver in drivers},
    )


def _agent(find_agent: Callable[[str], Path], machine: str) -> AgentFact:
    try:
        return AgentFact(path=find_agent(machine))
    except MetalmarkError as error:
        return AgentFact(path=None, error=str(error))


async def _probe(driver: Driver) -> Availability:
    # A sandbox whose probe fails is not usable; the others are still told of.
    try:
        return await driver.probe()
    except MetalmarkError as error:
        return Availability(usable=False, reason=str(error), hint=error.hint)


def diagnose(examination: Examination) -> Diagnosis:
    """Judge everything that was read and tried."""
    return Diagnosis(
        host=_heading(examination),
        findings=tuple(check(examination) for check in CHECKS),
        sandboxes=tuple(_sandbox(name, availability) for name, availability in examination.sandboxes.items()),
        notes=doctor_checks_host.host_notes(examination),
    )


def _sandbox(name: SandboxName, availability: Availability) -> SandboxFinding:
    accelerator = availability.accelerator if availability.usable else None
    return SandboxFinding(
        name=name,
        usable=availability.usable,
        accelerator=None if accelerator is None else str(accelerator),
        reason=availability.reason + (_DANGER if name is SandboxName.NONE and availability.usable else ""),
        hint=availability.hint,
    )


def _heading(examination: Examination) -> dict[str, str]:
    facts = examination.facts
    return {
        "distribution": facts.distribution.title,
        "kernel": facts.kernel_release,
        "machine": facts.machine,
        "user": facts.user,
        "cpus": facts.topology.describe(),
        "memory": f"{format_bytes(facts.memory.total_bytes)}, {format_bytes(facts.memory.available_bytes)} available",
    }
