from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.runner.surroundings import surroundings

from metalmark.model import ImageConfig, InputError, JobSpec, Outcome, SandboxName
from metalmark.runner import SCENARIOS, RunObserver, execute, select
from metalmark.runner.selftest import why_skipped
from metalmark.runner.selftest_checks import both, ended, ok, prints, ran, refused, shows
from metalmark.runner.selftest_scenario import Check, Scenario, Seen, Unexpected
from metalmark.testing.fake_sandbox import FakeCommand, FakeDriver
from metalmark.wire import Ending

NAMED_BY_THE_ISSUE = {
    "basic_execution", "environment_variables", "working_directory", "file_output", "exit_code", "timeout_handling",
    "writable_filesystem", "stderr_capture", "multi_cpu", "entrypoint_with_args", "no_network_access",
}  # fmt: skip


def test_the_eleven_that_every_runner_has_are_there_and_names_are_unique() -> None:
    names = [scenario.name for scenario in SCENARIOS]
    assert set(names) >= NAMED_BY_THE_ISSUE
    assert len(set(names)) == len(names) > 75
    assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in names)
    assert all(scenario.about for scenario in SCENARIOS)


def test_selection_keeps_the_order_and_refuses_unknown_names() -> None:
    assert [scenario.name for scenario in select(("exit_code", "basic_execution"))] == ["basic_execution", "exit_code"]
    assert select(()) == SCENARIOS
    with pytest.raises(InputError, match="no_such_thing"):
        select(("no_such_thing",))


@pytest.mark.parametrize(
    ("name", "sandbox", "cpus", "part"),
    [
        ("multi_cpu", SandboxName.QEMU, 2, "needs 4 CPUs"),
        ("multi_cpu", SandboxName.QEMU, 4, ""),
        ("power_off_from_inside", SandboxName.CONTAINER, 4, "kernel of its own"),
        ("power_off_from_inside", SandboxName.FIRECRACKER, 4, ""),
    ],
)
def test_skips_have_their_reason(name: str, sandbox: SandboxName, cpus: int, part: str) -> None:
    [scenario] = select((name,))
    reason = why_skipped(scenario, sandbox, cpus)
    assert (part in reason) if part else reason == ""


def test_scenario_of_another_architecture_is_skipped() -> None:
    [scenario] = select(("iopl_dropped_before_exec",))
    assert "vax" in why_skipped(replace(scenario, machine="vax"), SandboxName.QEMU, 4)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (ok, FakeCommand(), FakeCommand(code=1)),
        (prints("a\n"), FakeCommand(stdout=[b"a\n"]), FakeCommand(stdout=[b"a"])),
        (prints("{token}"), FakeCommand(stdout=[b"T"]), FakeCommand(stdout=[b"{token}"])),
        (shows("b"), FakeCommand(stdout=[b"a\nb\n"]), FakeCommand(stdout=[b"ab\n"])),
        (ended(Outcome.SIGNALED, 139), FakeCommand(ending=Ending.SIGNALED, code=11), FakeCommand(code=139)),
        (refused("ghost"), FakeCommand(ending=Ending.UNKNOWN_USER, message="ghost"), FakeCommand(code=125)),
        (ran(1, 3), FakeCommand(code=3), FakeCommand()),
        (both(ok, prints("x")), FakeCommand(stdout=[b"x"]), FakeCommand(stdout=[b"y"])),
    ],
    ids=["ok", "prints", "token", "shows", "ended", "refused", "ran", "both"],
)
async def test_checks_tell_good_from_bad(tmp_path: Path, check: Check, good: FakeCommand, bad: FakeCommand) -> None:
    for command, passes in ((good, True), (bad, False)):
        folder = tmp_path / str(passes)
        folder.mkdir()
        context = surroundings(folder, FakeDriver(command))
        record = await execute(JobSpec(image="x"), context=context, observer=RunObserver())
        seen = Seen(record=record, sandbox=SandboxName.CONTAINER, token="T")
        if passes:
            check(seen)
        else:
            with pytest.raises(Unexpected):
                check(seen)


def test_image_of_a_scenario_runs_its_words_or_its_own_configuration() -> None:
    scenario = Scenario(name="x", about="x", check=ok, words=("echo", "{token}"))
    assert scenario.image_config("T").cmd == ("/bin/selftest", "echo", "T")
    own = replace(scenario, config=ImageConfig(cmd=("/x",)))
    assert own.image_config("T").cmd == ("/x",)
