from __future__ import annotations

from pathlib import Path

import pytest

from metalmark.cli.host_display import explanation, plan_lines, show_diagnosis
from metalmark.model import InputError, SandboxName
from metalmark.runner import Diagnosis, Finding, SetupPlan, Status
from metalmark.runner.finding import Note, SandboxFinding
from metalmark.runner.setup_plan import InstallPackages, JoinGroup

HOST = {
    "distribution": "Debian GNU/Linux 12",
    "machine": "x86_64",
    "cpus": "4 CPUs (0-3)",
    "kernel": "6.1.0",
    "memory": "8 GiB",
}


def test_every_line_its_mending_and_the_verdict_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    command = "sudo apt-get install --no-install-recommends " + "a-package-with-a-long-name " * 8
    diagnosis = Diagnosis(
        host=HOST,
        findings=(
            Finding(name="kvm", status=Status.OK, found="a guest ran [really]", why="speed"),
            Finding(name="qemu", status=Status.MISSING, found="not installed", why="sandbox qemu", fix=command),
        ),
        sandboxes=(
            SandboxFinding(name=SandboxName.QEMU, usable=False, reason="no QEMU", hint="install it"),
            SandboxFinding(name=SandboxName.CONTAINER, usable=True, accelerator="native", reason="a container ran"),
        ),
        notes=(Note(name="irqbalance", text="irqbalance runs", advice="stop it"),),
    )
    show_diagnosis(diagnosis)
    shown = capsys.readouterr().out
    assert "a guest ran [really]" in shown, "text that looks like markup is text"
    assert f"  qemu: {command}\n" in shown, "a command to copy is not folded"
    assert "docs/" not in shown, "an installation has no documentation"
    assert "metalmark host doctor --explain NAME" in shown
    assert "no QEMU; install it" in shown
    assert "note: irqbalance runs [irqbalance]\n      stop it\n" in shown
    assert "Sandboxes that work here: container." in shown
    assert "\x1b" not in shown


def test_a_line_is_explained_and_an_unknown_one_refused_with_those_there_are() -> None:
    assert "**Mend.** `sudo usermod" in explanation("kvm-group")
    assert "nested" not in explanation("sandbox-none")
    with pytest.raises(InputError) as refused:
        explanation("kvn")
    assert "kvm-group, nested-virtualization" in refused.value.hint


def test_no_sandbox_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    show_diagnosis(Diagnosis(host=HOST, findings=(), sandboxes=(), notes=()))
    assert "Sandboxes that work here: none." in capsys.readouterr().out


def test_a_plan_is_told_in_full() -> None:
    plan = SetupPlan(
        actions=(InstallPackages(names=("runc",)), JoinGroup(user="ada", group="kvm")),
        present=("packages qemu",),
        by_hand=("sudo modprobe loop",),
        left_out=("firecracker: no KVM",),
    )
    assert list(plan_lines(plan)) == [
        "already there: packages qemu",
        "left out: firecracker: no KVM",
        "1. install runc with apt-get",
        "2. put ada into group kvm, from the next login on",
        "left to you, because it needs root:",
        "   sudo modprobe loop",
    ]


def test_nothing_to_do_is_said() -> None:
    assert list(plan_lines(SetupPlan())) == ["nothing to do"]
    assert "from /media" in InstallPackages(names=("a",), bundle=Path("/media")).describe()
