from __future__ import annotations

from typing import Any

import pytest
from tests.unit.runner.examinations import examination, guest_kernel, without_tool

from metalmark.model import ToolMissing
from metalmark.runner import doctor_checks_vm as checks
from metalmark.runner.distribution import Distribution
from metalmark.runner.examination import AgentFact
from metalmark.runner.finding import Status
from metalmark.runner.host_facts import KvmDeviceFacts, VirtualisationFacts
from metalmark.sandbox import KvmProbe, KvmState


def probed(state: KvmState, hint: str = "") -> KvmProbe:
    return KvmProbe(state=state, reason=f"it is {state}", hint=hint)


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (KvmState.OK, Status.OK),
        (KvmState.ABSENT, Status.MISSING),
        (KvmState.NO_PERMISSION, Status.UNUSABLE),
        (KvmState.EMULATED, Status.UNUSABLE),
    ],
)
def test_kvm_is_what_the_probe_proved(state: KvmState, status: Status) -> None:
    finding = checks.check_kvm(examination(kvm=probed(state)))
    assert finding.status is status
    assert finding.found == f"it is {state}"
    assert bool(finding.fix) == (status is not Status.OK)


def test_a_kvm_without_permission_is_mended_by_its_group() -> None:
    device = KvmDeviceFacts(exists=True, readable=False, group="kvm")
    finding = checks.check_kvm(examination(facts={"kvm_device": device}, kvm=probed(KvmState.NO_PERMISSION)))
    assert finding.fix == "sudo usermod -aG kvm ada, then log in again"


@pytest.mark.parametrize(
    ("facts", "status", "fix"),
    [
        ({}, Status.OK, ""),
        ({"uid": 0, "groups": frozenset()}, Status.OK, ""),
        ({"groups": frozenset()}, Status.OK, ""),  # the device may be opened all the same, by an access control list
        (
            {"groups": frozenset(), "listed_groups": frozenset(), "kvm_device": KvmDeviceFacts(exists=False)},
            Status.MISSING,
            "usermod -aG kvm ada",
        ),
        ({"groups": frozenset(), "kvm_device": KvmDeviceFacts(exists=False)}, Status.UNUSABLE, "log out"),
        (
            {
                "groups": frozenset(),
                "listed_groups": frozenset(),
                "known_groups": frozenset(("root",)),
                "kvm_device": KvmDeviceFacts(exists=False),
            },
            Status.MISSING,
            "groupadd --system kvm",
        ),
    ],
)
def test_membership_of_the_group(facts: dict[str, Any], status: Status, fix: str) -> None:
    finding = checks.check_kvm_group(examination(facts=facts))
    assert finding.status is status
    assert fix in finding.fix
    assert bool(fix) == bool(finding.fix)


@pytest.mark.parametrize(
    ("guest", "extension", "state", "status"),
    [
        (False, "", KvmState.ABSENT, Status.OK),
        (True, "vmx", KvmState.ABSENT, Status.OK),
        (True, "", KvmState.OK, Status.OK),
        (True, "", KvmState.ABSENT, Status.MISSING),
        (True, "vmx", KvmState.EMULATED, Status.UNUSABLE),
    ],
)
def test_nested_virtualisation(guest: bool, extension: str, state: KvmState, status: Status) -> None:
    virtual = VirtualisationFacts(guest=guest, vendor="QEMU", cpu_extension=extension)
    finding = checks.check_nested(examination(facts={"virtualisation": virtual}, kvm=probed(state)))
    assert finding.status is status
    assert ("nested=1" in finding.fix) == (status is not Status.OK)


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        (without_tool("qemu-system-x86_64"), Status.MISSING, "is not installed"),
        (without_tool("qemu-system-x86_64", error="libfoo.so: not found"), Status.UNUSABLE, "libfoo.so"),
        (without_tool("qemu-system-x86_64", version="4.2.1"), Status.UNUSABLE, "older than 5.2"),
        (without_tool("qemu-system-x86_64", version="6.2.0"), Status.OK, "--network needs 7.2"),
        (without_tool("qemu-system-x86_64", version="10.0.2"), Status.OK, "10.0.2"),
    ],
)
def test_qemu_must_be_there_start_and_be_new_enough(change: dict[str, Any], status: Status, said: str) -> None:
    finding = checks.check_qemu(examination(facts=change))
    assert finding.status is status
    assert said in finding.found


def test_the_package_of_qemu_depends_on_the_machine_and_the_user() -> None:
    finding = checks.check_qemu(examination(facts={"machine": "aarch64", "uid": 0}))
    assert finding.fix == "apt-get install --no-install-recommends qemu-system-arm"


def test_other_distributions_are_told_what_without_a_command() -> None:
    fedora = {**without_tool("qemu-system-x86_64"), "distribution": Distribution(name="fedora")}
    assert checks.check_qemu(examination(facts=fedora)).fix == "install what your distribution calls qemu-system-x86"


def test_a_broken_tool_is_reinstalled() -> None:
    finding = checks.check_qemu(examination(facts=without_tool("qemu-system-x86_64", error="broken")))
    assert finding.fix == "sudo apt-get install --reinstall --no-install-recommends qemu-system-x86"


def test_firecracker_is_optional_and_set_up_on_request() -> None:
    finding = checks.check_firecracker(examination(facts=without_tool("firecracker")))
    assert finding.status is Status.MISSING
    assert finding.fix == "metalmark host setup --with firecracker"
    assert "optional" in finding.why
    emulated = examination(facts=without_tool("firecracker"), kvm=probed(KvmState.EMULATED))
    assert "of no use here" in checks.check_firecracker(emulated).why
    broken = checks.check_firecracker(examination(facts=without_tool("firecracker", error="Exec format error")))
    assert broken.status is Status.UNUSABLE


def test_a_guest_kernel_for_this_machine_is_needed() -> None:
    assert checks.check_guest_kernel(examination()).status is Status.OK
    for kernels in ((), (guest_kernel(machine="aarch64"),)):
        finding = checks.check_guest_kernel(examination(kernels=kernels))
        assert finding.status is Status.MISSING
        assert finding.fix == "metalmark host setup"


def test_a_guest_kernel_without_its_drivers_is_unusable() -> None:
    kernel = guest_kernel(builtin=frozenset(("virtio_blk", "squashfs", "overlay")))
    finding = checks.check_guest_kernel(examination(kernels=(kernel,)))
    assert finding.status is Status.UNUSABLE
    assert "virtio_console" in finding.found


def test_a_guest_kernel_without_vsock_is_not_for_firecracker() -> None:
    kernel = guest_kernel(builtin=frozenset(("virtio_blk", "virtio_console", "squashfs", "overlay")))
    finding = checks.check_guest_kernel(examination(kernels=(kernel,)))
    assert finding.status is Status.OK
    assert "not for firecracker" in finding.found


def test_the_guest_agent_must_be_there() -> None:
    assert checks.check_guest_agent(examination()).status is Status.OK
    error = str(ToolMissing("there is no guest agent for x86_64"))
    finding = checks.check_guest_agent(examination(agent=AgentFact(path=None, error=error)))
    assert finding.status is Status.MISSING
    assert finding.found == error
    assert "pip install" in finding.fix


def test_vsock_says_that_nothing_needs_it() -> None:
    finding = checks.check_vsock(examination(facts={"vsock_host": False}))
    assert finding.status is Status.MISSING
    assert finding.fix == "sudo modprobe vhost_vsock"
    assert "nothing here needs it" in finding.why
