"""The guest kernel's command line."""

from __future__ import annotations

import pytest

from metalmark.model import StableError
from metalmark.sandbox import Accelerator
from metalmark.sandbox.cmdline import kernel_command_line


def test_emulated_x86_is_told_the_rate_of_its_counter() -> None:
    words = kernel_command_line(machine="x86_64", accelerator=Accelerator.TCG, tsc_khz=2_100_000).split()
    assert "tsc_early_khz=2100000" in words
    assert "tsc=reliable" in words


def test_emulated_x86_without_the_rate_is_refused_for_it_may_hang() -> None:
    with pytest.raises(StableError):
        kernel_command_line(machine="x86_64", accelerator=Accelerator.TCG)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_under_kvm_nothing_is_said_of_clocks(machine: str) -> None:
    line = kernel_command_line(machine=machine, accelerator=Accelerator.KVM)
    assert "tsc" not in line
    assert "noreplace-smp" not in line


def test_measured_run_has_no_console() -> None:
    assert "console=" not in kernel_command_line(machine="x86_64", accelerator=Accelerator.KVM)
    assert "console=ttyS0" in kernel_command_line(machine="x86_64", accelerator=Accelerator.KVM, console="ttyS0")


def test_agent_gets_its_mode_and_its_port() -> None:
    line = kernel_command_line(machine="x86_64", accelerator=Accelerator.KVM, vsock_port=52, firecracker=True)
    assert line.endswith(" -- init")
    assert " metalmark.vsock=52 " in line
    assert "reboot=k" in line
