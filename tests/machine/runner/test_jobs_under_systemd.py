"""Jobs of the service under a real systemd: in a microVM, on its way out, and over a cut of the power."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.runner.artifact_variants import variant
from tests.machine.systemd_vm import need_systemd_vm, run_tests

pytestmark = pytest.mark.needs_root
TESTS = "tests/machine/runner/jobs_in_systemd.py"
_DISK_BYTES = 8 * 1024**3


@pytest.mark.timeout(3600)
def test_jobs_of_the_service(guest_kernels: Path, tmp_path: Path, request: pytest.FixtureRequest, soak: bool) -> None:
    if not soak:
        pytest.skip("a machine emulated in an emulated machine takes minutes (METALMARK_SOAK=1 boots it)")
    need_systemd_vm()
    # A guest of an emulated machine boots in minutes.
    patient = {"metalmark/sandbox/qemu.py": ("_TCG_BOOT_S: Final = 45.0", "_TCG_BOOT_S: Final = 600.0")}
    artifact = variant(request.getfixturevalue("update_artifact"), tmp_path / "first.tar", "6.0", patient)
    kernels = tmp_path / "kernels.tar"
    folder = guest_kernels.resolve()
    subprocess.run(
        ["tar", "-cf", kernels, "-C", folder.parent, f"--transform=s/^{folder.name}/kernels/", folder.name], check=True
    )
    disk = tmp_path / "disk"
    with disk.open("wb") as stream:
        stream.truncate(_DISK_BYTES)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", disk], check=True)
    for name in ("before_the_power_is_cut", "after_the_next_boot"):
        outcome = run_tests(
            guest_kernels,
            [TESTS, "-s", "-k", name],
            timeout_s=1700,
            files={"first.tar": artifact, "kernels.tar": kernels},
            packages=("qemu-system-x86",),
            disk=disk,
        )
        sys.stdout.write(outcome.text)
        assert outcome.returncode == 0, outcome.text[-6000:]
        assert outcome.count("passed") == 1
