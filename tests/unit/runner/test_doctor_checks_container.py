from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.runner.examinations import V2, examination, healthy_facts, without_tool

from metalmark.runner import doctor_checks_container as checks
from metalmark.runner.examination import Examination
from metalmark.runner.finding import Finding, Status
from metalmark.runner.host_facts import CgroupFacts, ToolFact, UserNamespaceFacts


def test_either_runtime_will_do() -> None:
    finding = checks.check_container_runtime(examination(facts=without_tool("runc")))
    assert finding.status is Status.OK
    assert "crun" in finding.found
    assert "runc" not in finding.found.replace("crun", "")


def test_no_runtime_is_missing() -> None:
    tools = {name: tool for name, tool in healthy_facts().tools.items() if name not in ("runc", "crun")}
    finding = checks.check_container_runtime(examination(facts={"tools": tools}))
    assert finding.status is Status.MISSING
    assert finding.fix == "sudo apt-get install --no-install-recommends runc"


def test_a_runtime_that_does_not_start_is_unusable() -> None:
    tools = {"runc": ToolFact(name="runc", path="/usr/bin/runc", error="killed")}
    finding = checks.check_container_runtime(examination(facts={"tools": tools}))
    assert finding.status is Status.UNUSABLE
    assert "killed" in finding.found


@pytest.mark.parametrize(
    ("cgroups", "uid", "status", "said"),
    [
        (CgroupFacts(version="v2", controllers=V2, writable=True), 0, Status.OK, "v2 with cpu"),
        (CgroupFacts(version="v2", controllers=V2, writable=False), 1000, Status.OK, "needs root"),
        (CgroupFacts(version="v2", controllers=V2, writable=False), 0, Status.UNUSABLE, "read-only"),
        (CgroupFacts(version="v2", controllers=V2 - {"memory"}), 0, Status.UNUSABLE, "memory"),
        (CgroupFacts(version="hybrid", controllers=V2, writable=True), 0, Status.UNUSABLE, "cpuacct"),
        (CgroupFacts(version="hybrid", controllers=V2 | {"cpuacct"}, writable=True), 0, Status.OK, "hybrid"),
        (CgroupFacts(version=""), 0, Status.MISSING, "no control groups"),
    ],
)
def test_control_groups(cgroups: CgroupFacts, uid: int, status: Status, said: str) -> None:
    finding = checks.check_cgroups(examination(facts={"cgroups": cgroups, "uid": uid}))
    assert finding.status is status
    assert said in finding.found
    assert bool(finding.fix) == (status is not Status.OK)


def test_a_lacking_memory_controller_is_switched_on_at_boot() -> None:
    cgroups = CgroupFacts(version="v2", controllers=V2 - {"memory"})
    assert "cgroup_enable=memory" in checks.check_cgroups(examination(facts={"cgroups": cgroups})).fix


@pytest.mark.parametrize(
    ("check", "program", "package"),
    [
        (checks.check_squashfs_tools, "mksquashfs", "squashfs-tools"),
        (checks.check_ext4_tools, "mke2fs", "e2fsprogs"),
        (checks.check_passt, "passt", "passt"),
        (checks.check_util_linux, "setpriv", "util-linux"),
    ],
)
def test_tools_must_be_there_and_start(check: Callable[[Examination], Finding], program: str, package: str) -> None:
    assert check(examination()).status is Status.OK
    missing = check(examination(facts=without_tool(program)))
    assert missing.status is Status.MISSING
    assert missing.fix == f"sudo apt-get install --no-install-recommends {package}"
    broken = check(examination(facts=without_tool(program, error="no libc")))
    assert broken.status is Status.UNUSABLE
    assert "no libc" in broken.found
    assert "--reinstall" in broken.fix


@pytest.mark.parametrize(("check", "kind"), [(checks.check_squashfs, "squashfs"), (checks.check_overlayfs, "overlay")])
def test_file_systems_of_the_kernel(check: Callable[[Examination], Finding], kind: str) -> None:
    assert check(examination()).status is Status.OK
    finding = check(examination(facts={"filesystems": frozenset(("ext4",))}))
    assert finding.status is Status.MISSING
    assert f"sudo modprobe {kind}" in finding.fix


@pytest.mark.parametrize(
    ("facts", "status"),
    [
        ({"uid": 0}, Status.OK),
        ({"uid": 1000, "loop_usable": False}, Status.OK),
        ({"uid": 0, "loop_usable": False}, Status.UNUSABLE),
        ({"uid": 0, "loop_control": False}, Status.MISSING),
    ],
)
def test_loop_devices(facts: dict[str, Any], status: Status) -> None:
    assert checks.check_loop_devices(examination(facts=facts)).status is status


@pytest.mark.parametrize(
    ("spaces", "uid", "status", "fix"),
    [
        (UserNamespaceFacts(supported=True, limit=100), 1000, Status.OK, ""),
        (UserNamespaceFacts(supported=False), 1000, Status.MISSING, "CONFIG_USER_NS"),
        (UserNamespaceFacts(supported=False, limit=0), 1000, Status.UNUSABLE, "user.max_user_namespaces=15000"),
        (
            UserNamespaceFacts(supported=True, clone_allowed=False),
            1000,
            Status.UNUSABLE,
            "kernel.unprivileged_userns_clone=1",
        ),
        (UserNamespaceFacts(supported=True, clone_allowed=False), 0, Status.OK, ""),
        (
            UserNamespaceFacts(supported=True, apparmor_restricts=True),
            1000,
            Status.UNUSABLE,
            "kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        (UserNamespaceFacts(supported=True, apparmor_restricts=True), 0, Status.OK, ""),
        (UserNamespaceFacts(supported=True, error="Operation not permitted"), 0, Status.UNUSABLE, "security profile"),
    ],
)
def test_user_namespaces(spaces: UserNamespaceFacts, uid: int, status: Status, fix: str) -> None:
    finding = checks.check_user_namespaces(examination(facts={"user_namespaces": spaces, "uid": uid}))
    assert finding.status is status
    assert fix in finding.fix
    assert bool(fix) == bool(finding.fix)
