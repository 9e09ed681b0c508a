from __future__ import annotations

from metalmark.model import SandboxName
from metalmark.runner.finding import Diagnosis, Finding, Note, SandboxFinding, Status


def test_lines_name_their_entry() -> None:
    finding = Finding(name="kvm", status=Status.MISSING, found="x", why="y")
    assert finding.entry == "docs/howto/troubleshooting.md#kvm"
    sandbox = SandboxFinding(name=SandboxName.QEMU, usable=False, reason="z")
    assert sandbox.entry == "docs/howto/troubleshooting.md#sandbox-qemu", "its tool has an entry of its own"
    assert Note(name="irqbalance", text="x").entry.endswith("#irqbalance")


def test_an_unusable_sandbox_has_no_accelerator_in_json() -> None:
    sandbox = SandboxFinding(name=SandboxName.QEMU, usable=False, reason="no kernel", hint="set it up")
    diagnosis = Diagnosis(host={}, findings=(), sandboxes=(sandbox,), notes=(Note(name="n", text="t"),))
    assert not diagnosis.usable
    shown = diagnosis.as_json()
    assert shown["sandboxes"][0]["accelerator"] is None
    assert shown["notes"][0] == {"name": "n", "text": "t", "advice": "", "entry": "docs/howto/troubleshooting.md#n"}
