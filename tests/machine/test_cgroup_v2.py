"""The container and none sandboxes on a machine with systemd and cgroup v2, which most users have."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.machine.systemd_vm import need_systemd_vm, run_tests

pytestmark = pytest.mark.needs_root

_SELECTED = (
    "alone or memory_limit or processes_are or cpus_are or accounted or fork_bomb or runtime_works or own_limits"
    " or capabilities or agent_killed or runtime_killed or (test_runner_killed and (create or exec or stop))"
)
"""One of each kind of limit and of each kind of death: everything takes ten times as long in there."""


@pytest.mark.timeout(900)
def test_host_boxes_under_systemd(guest_kernels: Path) -> None:
    need_systemd_vm()
    outcome = run_tests(
        guest_kernels,
        [
            "tests/machine/sandbox/test_host_boxes.py",
            "tests/machine/sandbox/test_container.py",
            "tests/faults/sandbox/test_host_boxes_killed.py",
            "-k",
            _SELECTED,
        ],
        timeout_s=800,
    )
    assert outcome.returncode == 0, outcome.text[-6000:]
    assert outcome.count("passed") >= 24, outcome.text[-3000:]
    assert outcome.count("skipped") == 0, outcome.text[-3000:]
