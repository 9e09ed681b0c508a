"""The runner as a service: installed, updated, taken back, stopped and removed, under a real systemd in a machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.integration.runner.artifact_variants import variant
from tests.machine.systemd_vm import need_systemd_vm, run_tests

pytestmark = pytest.mark.needs_root


@pytest.mark.timeout(1800)
def test_the_service(guest_kernels: Path, tmp_path: Path, request: pytest.FixtureRequest, soak: bool) -> None:
    """Without the full counts there are no updates: each is minutes in an emulated machine, and tried as a process."""
    need_systemd_vm()
    artifact: Path = request.getfixturevalue("update_artifact")
    quick = {"metalmark/runner/managed_update.py": ("TRIAL_S = 60.0", "TRIAL_S = 200.0")}
    dead = {"metalmark/runner/link.py": ("        while True:\n", "        raise SystemExit(9)\n        while True:\n")}
    # An emulated machine is ten times as slow: a trial gets more than a minute there.
    changes = {"first.tar": ("6.0", quick)}
    if soak:
        changes |= {"good.tar": ("7.0", quick), "dead.tar": ("7.2", {**quick, **dead})}
    files = {name: variant(artifact, tmp_path / name, *change) for name, change in changes.items()}
    outcome = run_tests(
        guest_kernels, ["tests/machine/runner/service_in_systemd.py", "-s"], timeout_s=1500, files=files
    )
    sys.stdout.write(outcome.text)
    assert outcome.returncode == 0, outcome.text[-6000:]
    assert outcome.count("passed") == 1
