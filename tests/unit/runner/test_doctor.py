from __future__ import annotations

import json
import re
from pathlib import Path

from tests.unit.runner.examinations import examination

from metalmark.model import SandboxName
from metalmark.runner import doctor
from metalmark.runner.doctor import diagnose
from metalmark.runner.finding import Status
from metalmark.sandbox import Accelerator, Availability

REFERENCE = Path(__file__).parents[3] / "docs/reference/host-doctor.md"
NOTES = {"irqbalance", "virtual-host", "boot-isolation", "cgroup-version", "shared-cores", "kvm-start"}


def test_a_healthy_host_has_nothing_to_mend() -> None:
    diagnosis = diagnose(examination())
    assert {finding.status for finding in diagnosis.findings} == {Status.OK}
    assert all(finding.fix == "" and finding.why and finding.found for finding in diagnosis.findings)
    assert diagnosis.usable
    assert diagnosis.notes == ()


def test_every_line_has_a_name_of_its_own() -> None:
    names = [finding.name for finding in diagnose(examination()).findings]
    assert len(set(names)) == len(names) == len(doctor.CHECKS)


def test_running_without_a_sandbox_does_not_count() -> None:
    none = Availability(usable=True, accelerator=Accelerator.NATIVE, reason="allowed")
    assert not diagnose(examination(sandboxes={SandboxName.NONE: none})).usable
    emulated = Availability(usable=True, accelerator=Accelerator.TCG, reason="emulation")
    assert diagnose(examination(sandboxes={SandboxName.NONE: none, SandboxName.QEMU: emulated})).usable


def test_the_json_object_is_plain_and_complete() -> None:
    shown = json.loads(json.dumps(diagnose(examination()).as_json()))
    assert shown["schema"] == 1
    assert shown["usable"] is True
    assert set(shown) == {"schema", "usable", "host", "sandboxes", "findings", "notes"}
    assert set(shown["findings"][0]) == {"name", "status", "found", "why", "fix", "entry"}
    assert shown["sandboxes"][0] == {
        "name": "qemu",
        "usable": True,
        "accelerator": "kvm",
        "reason": "QEMU 7.2 under KVM",
        "hint": "",
    }


def test_the_reference_has_an_entry_for_every_line_and_no_other() -> None:
    explained = set(re.findall(r"^### `([a-z0-9-]+)`", REFERENCE.read_text(encoding="utf-8"), re.MULTILINE))
    assert explained == {finding.name for finding in diagnose(examination()).findings} | NOTES
