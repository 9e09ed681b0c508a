from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from metalmark.cli import host
from metalmark.model import InputError, MetalmarkError, SandboxName, StableError
from metalmark.runner import Diagnosis, SetupPlan
from metalmark.runner import setup as runner_setup
from metalmark.runner.finding import SandboxFinding
from metalmark.runner.setup_apply import SetupReport
from metalmark.runner.setup_plan import InstallPackages

HOST = dict.fromkeys(("distribution", "machine", "cpus", "kernel", "memory"), "x")


class FakeSetup:
    """A set-up that only remembers whether it was applied."""

    def __init__(self, plan: SetupPlan, report: SetupReport) -> None:
        self.plan = plan
        self.report = report
        self.applied = False

    async def apply(self, say: object) -> SetupReport:
        self.applied = True
        return self.report


DONE = SetupReport(done=("installed runc",), failed=())
WORK = SetupPlan(actions=(InstallPackages(names=("runc",)),))


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch, metalmark_home: Path) -> Any:
    def give(plan: SetupPlan, report: SetupReport = DONE) -> FakeSetup:
        fake = FakeSetup(plan, report)

        async def prepare(*_: object, **__: object) -> FakeSetup:
            return fake

        monkeypatch.setattr(runner_setup, "prepare_setup", prepare)
        return fake

    return give


def run(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(host.app, list(words))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize(("usable", "code"), [(True, 0), (False, 1)])
def test_the_exit_code_says_whether_a_sandbox_works(monkeypatch: pytest.MonkeyPatch, usable: bool, code: int) -> None:
    sandbox = SandboxFinding(name=SandboxName.QEMU, usable=usable, reason="x")

    async def examine() -> Diagnosis:
        return Diagnosis(host=HOST, findings=(), sandboxes=(sandbox,), notes=())

    monkeypatch.setattr(host, "_examine", examine)
    assert run("doctor")[0] == code
    found, out, _ = run("doctor", "--json")
    assert found == code
    assert json.loads(out)["usable"] is usable


def test_root_is_sent_to_the_same_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "metalmark").touch()
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "metalmark"), "host"])
    assert host._program() == str(tmp_path / "metalmark")
    monkeypatch.setattr(sys, "argv", ["-c", "host"])
    assert host._program() == "metalmark"


def test_a_dry_run_does_nothing(given: Any) -> None:
    fake = given(WORK)
    code, _, err = run("setup", "--dry-run")
    assert code == 0
    assert "1. install runc with apt-get" in err
    assert not fake.applied


def test_without_a_terminal_it_is_not_done_unasked(given: Any) -> None:
    fake = given(WORK)
    assert run("setup")[0] == 1
    assert not fake.applied


@pytest.mark.parametrize(("typed", "applied"), [("y\n", True), ("YES\n", True), ("\n", False), ("n\n", False)])
def test_on_a_terminal_it_asks(given: Any, monkeypatch: pytest.MonkeyPatch, typed: str, applied: bool) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return typed

    monkeypatch.setattr(sys, "stdin", Terminal())
    assert host._agreed() is applied


def test_yes_does_it(given: Any) -> None:
    fake = given(WORK)
    code, out, err = run("setup", "--yes")
    assert code == 0
    assert fake.applied
    assert "done: installed runc" in err
    assert out == ""


def test_nothing_to_do_needs_no_answer(given: Any) -> None:
    fake = given(SetupPlan(present=("everything",)))
    code, _, err = run("setup")
    assert code == 0
    assert "nothing to do" in err
    assert not fake.applied


def test_what_is_left_to_the_user_is_not_success(given: Any) -> None:
    given(SetupPlan(by_hand=("sudo apt-get install runc",), incomplete=True))
    assert run("setup", "--yes")[0] == 1
    given(SetupPlan(by_hand=("sudo usermod -aG kvm ada",)))
    assert run("setup", "--yes")[0] == 0


def test_failures_are_told_with_their_hints(given: Any) -> None:
    error = StableError("apt has no package runc", hint="enable universe")
    given(WORK, SetupReport(done=(), failed=(("install runc", error),)))
    code, out, err = run("setup", "--yes", "--json")
    assert code == 1
    assert "hint: enable universe" in err
    assert json.loads(out)["failed"] == [
        {"what": "install runc", "error": "apt has no package runc", "hint": "enable universe"}
    ]


@pytest.mark.parametrize("words", [("--download", "a", "--from", "b"), ("--manifest-sha256", "0" * 64)])
def test_flags_that_do_not_go_together_are_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(MetalmarkError) as caught:
        run("setup", *words)
    assert isinstance(caught.value, InputError)
