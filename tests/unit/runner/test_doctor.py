from __future__ import annotations

import json
import re
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from tests.unit.runner.examinations import examination

from metalmark.model import MetalmarkError, SandboxName, ToolMissing
from metalmark.runner import doctor
from metalmark.runner.doctor import diagnose
from metalmark.runner.finding import Finding, Note, SandboxFinding, Status
from metalmark.sandbox import Accelerator, Availability, Box, BoxSpec, DriverSettings
from metalmark.system import Folders

ROOT = Path(__file__).parents[3]
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
        "entry": "docs/howto/troubleshooting.md#sandbox-qemu",
    }


class FakeDriver:
    def __init__(self, name: SandboxName, answer: Availability | MetalmarkError) -> None:
        self._name = name
        self._answer = answer

    @property
    def name(self) -> SandboxName:
        return self._name

    async def probe(self) -> Availability:
        if isinstance(self._answer, MetalmarkError):
            raise self._answer
        return self._answer

    def create(self, spec: BoxSpec) -> AbstractAsyncContextManager[Box]:
        raise AssertionError("an examination makes no box")


def no_agent(machine: str) -> Path:
    raise ToolMissing(f"there is no guest agent for {machine}")


@pytest.mark.anyio
async def test_an_examination_survives_what_fails_in_it(tmp_path: Path) -> None:
    folders = Folders(state=tmp_path / "s", cache=tmp_path / "c", run=tmp_path / "r", config=tmp_path / "e")
    works = Availability(usable=True, accelerator=Accelerator.TCG, reason="emulating")
    broken = ToolMissing("runc is broken", hint="mend it")
    found = await doctor.examine(
        DriverSettings(folders=folders, machine="x86_64", kvm_device=tmp_path / "kvm"),
        environment={},
        drivers=[FakeDriver(SandboxName.QEMU, works), FakeDriver(SandboxName.CONTAINER, broken)],
        find_agent=no_agent,
        find_firecracker=lambda _: None,
        root=tmp_path,
    )
    diagnosis = diagnose(found)
    assert [(sandbox.usable, sandbox.accelerator) for sandbox in diagnosis.sandboxes] == [(True, "tcg"), (False, None)]
    assert diagnosis.sandboxes[1].reason == "runc is broken"
    assert diagnosis.sandboxes[1].hint == "mend it"
    lines = {finding.name: finding for finding in diagnosis.findings}
    assert lines["guest-agent"].found == "there is no guest agent for x86_64"
    assert {lines[name].status for name in ("kvm", "qemu", "guest-kernel", "cgroups")} == {Status.MISSING}
    assert list(tmp_path.iterdir()) == [], "an examination changes nothing"


def test_none_is_told_to_need_permission() -> None:
    none = Availability(usable=True, accelerator=Accelerator.NATIVE, reason="root")
    shown = diagnose(examination(sandboxes={SandboxName.NONE: none})).sandboxes[0]
    assert "--danger-allow-no-sandbox" in shown.reason


def test_every_line_links_to_an_entry_that_is_there_and_says_what_mends_it() -> None:
    everywhere = {name: Availability(usable=False, reason="none of it") for name in SandboxName}
    diagnosis = diagnose(examination(sandboxes=everywhere))
    lines: list[Finding | SandboxFinding | Note] = [*diagnosis.findings, *diagnosis.sandboxes]
    lines += [Note(name=name, text="") for name in NOTES]
    (name,) = {line.entry.partition("#")[0] for line in lines}
    page = (ROOT / name).read_text(encoding="utf-8")
    entries = dict(re.findall(r"^### `([a-z0-9-]+)`\n\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL))
    assert set(entries) == {line.entry.partition("#")[2] for line in lines}
    for finding in diagnosis.findings:
        assert all(f"**{part}.**" in entries[finding.name] for part in ("Symptom", "Cause", "Mend")), finding.name
