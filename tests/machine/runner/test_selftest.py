"""The scenarios of ``metalmark host selftest`` on every sandbox that works here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from metalmark.model import SandboxName, SandboxUnavailable
from metalmark.runner import MachineSandboxes, Mark, SelftestRequest, run_selftest
from metalmark.runner.selftest import SCENARIOS
from metalmark.sandbox import DriverSettings, sweep
from metalmark.system import folders

ROOT = Path(__file__).parents[3]
NOBODY = 65534
USER_SCENARIOS = (
    "basic_execution", "user_by_name", "writable_ext4_root", "file_output", "timeout_handling", "job_cancelled",
    "no_network_access", "network_enabled", "memory_limit_enforced", "disk_limit_enforced", "power_off_from_inside",
)  # fmt: skip
"""What differs for want of privilege; the rest is the guest's doing and the same for everybody."""


SAME_EVERYWHERE = frozenset((
    "environment_variables", "working_directory", "entrypoint_with_args", "shell_form_cmd", "entrypoint_only",
    "shell_form_entrypoint", "entrypoint_shell_with_cmd", "no_cmd_no_entrypoint", "file_content_preserved",
    "user_by_number", "command_not_executable", "env_var_passthrough", "cli_entrypoint_override", "cli_cmd_override",
    "cli_entrypoint_and_cmd_override", "cli_entrypoint_no_image_entrypoint", "cli_env_override", "cli_env_add",
    "cli_env_multiple", "stderr_only", "empty_output", "unique_output_validation", "signal_exit",
    "failed_with_partial_output", "zero_iterations", "allow_failure_false_aborts", "allow_failure_true_continues",
    "metrics_wall_clock_reasonable", "completed_with_all_fields",
))  # fmt: skip
"""What is decided before there is a box, or of what its agent says, which is one program: whatever breaks these breaks
them with the container too, which has all of them every day. The others have them with the full counts."""


async def failures(home: Path, sandbox: SandboxName, *, parallel: int = 1, whole: bool = True) -> dict[str, str]:
    """Run all scenarios, or the sandbox's own; the test is skipped with the reason where the sandbox does not work."""
    names = tuple(scenario.name for scenario in SCENARIOS if whole or scenario.name not in SAME_EVERYWHERE)
    settings = DriverSettings(folders=folders({"METALMARK_HOME": str(home)}), allow_none=True)
    try:
        report = await run_selftest(
            SelftestRequest(
                settings=settings,
                sandboxes=MachineSandboxes(settings),
                sandbox=sandbox,
                names=names,
                parallel=parallel,
            )
        )
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    assert sum(result.mark is Mark.PASS for result in report.results) > len(names) * 5 // 6
    # Nothing of any box may be left for a sweep to find.
    assert sweep(settings.folders).removed == ()
    return {result.name: result.reason for result in report.results if result.mark is Mark.FAIL}


@pytest.mark.anyio
@pytest.mark.timeout(900)
async def test_qemu(home_with_kernel: Path, soak: bool) -> None:
    assert await failures(home_with_kernel, SandboxName.QEMU, parallel=2, whole=soak) == {}


@pytest.mark.anyio
@pytest.mark.needs_root
@pytest.mark.timeout(600)
@pytest.mark.parametrize("sandbox", [SandboxName.CONTAINER, SandboxName.NONE])
async def test_sandbox_on_this_kernel(metalmark_home: Path, sandbox: SandboxName, soak: bool) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts and cgroups")
    assert await failures(metalmark_home, sandbox, whole=soak or sandbox is SandboxName.CONTAINER) == {}


@pytest.fixture
def user_home(guest_kernels: Path) -> Iterator[Path]:
    """A home of an ordinary user in a place that the user can reach."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become another user")
    folder = Path(tempfile.mkdtemp(prefix="metalmark-user-", dir="/tmp"))
    try:
        shutil.copytree(guest_kernels, folder / "home/state/kernels")
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        folder.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.mark.needs_root
@pytest.mark.timeout(600)
def test_qemu_as_an_ordinary_user(user_home: Path, soak: bool) -> None:
    python = Path("/usr/bin/python3")
    version = f"import sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]!r})"
    if not python.exists() or subprocess.run([python, "-c", version], check=False).returncode != 0:
        pytest.skip("the system's Python, which an ordinary user can run, is another version than this one")
    site = next(path for path in sys.path if path.endswith("site-packages"))
    wanted = () if soak else tuple(word for name in USER_SCENARIOS for word in ("--scenario", name))
    done = subprocess.run(
        ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", python, "-c",
         "from metalmark.cli.main import main; main()", "host", "selftest", "--sandbox", "qemu", "--json", *wanted],
        env={
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(user_home), "METALMARK_HOME": str(user_home / "home"),
            "PYTHONPATH": f"{ROOT / 'src'}:{site}", "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(user_home),
        },
        cwd="/", capture_output=True, text=True, timeout=580, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    failed = {item["name"]: item["reason"] for item in report["scenarios"] if item["result"] == "fail"}
    assert (failed, done.returncode) == ({}, 0)
    assert len(report["scenarios"]) >= len(USER_SCENARIOS)
