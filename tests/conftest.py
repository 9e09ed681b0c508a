"""What every tier of tests shares."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from metalmark.testing.own_logs import log_beside_tests

ROOT = Path(__file__).parents[1]
_WITH_BOXES = ("tests/machine/", "tests/faults/runner/", "tests/faults/sandbox/")
_WITHOUT = (
    "tests/machine/runner/test_setup.py", "tests/machine/test_cgroup_v2.py", "tests/faults/runner/test_fleet.py",
)  # fmt: skip
"""Of those folders: what is alone in a machine or a root folder of its own, or has no boxes."""
_WITH_UPDATES = (
    "tests/machine/runner/test_service_under_systemd.py", "tests/machine/runner/test_jobs_under_systemd.py",
    "tests/integration/runner/test_version_folder.py", "tests/integration/runner/test_updated_process.py",
)  # fmt: skip
_WITH_A_WORLD = "tests/integration/server/conformance/"
_ALONE_IN_IT = "tests/integration/server/conformance/test_document.py"
"""As long as the others together."""


class _Lanes(LoadScopeScheduling):
    """A file at a time, except that all files with boxes are one after the other, beside files without."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        if path in _WITH_UPDATES:
            return "updates, which share an artifact"
        if path.startswith(_WITH_BOXES) and path not in _WITHOUT:
            return "boxes, which share CPUs, loop devices and a container engine"
        if path.startswith(_WITH_A_WORLD) and path != _ALONE_IN_IT:
            return "conformance, which shares a server of each engine"
        return path


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Have `pytest --numprocesses` share out the tests by `_Lanes`."""
    return _Lanes(config, log)


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """A test that sets logging up in this process leaves no log that writes to its own, closed stderr.

    Nor does a server in this process write to the stdout of a command that a test looks at.
    """
    log_beside_tests()
    yield
    structlog.reset_defaults()
    # A server of several tests goes on.
    log_beside_tests()


@pytest.fixture(scope="session", autouse=True)
def _signals_of_a_terminal() -> None:
    """Started with nohup or in a script's background, tests would hand ignored signals down to what they test."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Asynchronous tests (``pytest.mark.anyio``) run on asyncio, as the commands do."""
    return "asyncio"


@pytest.fixture(scope="session")
def soak() -> bool:
    """Whether the full counts are wanted (``scripts/soak``)."""
    return bool(os.environ.get("METALMARK_SOAK"))


@pytest.fixture(scope="session")
def guest_kernels() -> Path:
    """The folder of guest kernels that ``scripts/test`` or a set-up of this host has unpacked."""
    homes = [os.environ.get("METALMARK_HOME"), str(ROOT / ".cache/home")]
    places = [Path(home) / "state/kernels" for home in homes if home] + [Path("/var/lib/metalmark/kernels")]
    for place in places:
        if any(place.glob("*/kernel.json")):
            return place
    pytest.skip("no guest kernel is set up (scripts/test or `metalmark host setup` unpacks one)")


@pytest.fixture(scope="session")
def update_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of this checkout for this Python and machine, as scripts/build-update makes it."""
    if not (ROOT / ".cache/uv/bin/uv").exists():
        pytest.skip("uv is not in .cache/uv (scripts/setup-python puts it there)")
    out = tmp_path_factory.mktemp("artifact") / "metalmark-update.tar"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    command = [sys.executable, ROOT / "scripts/build-update", "--out", out, "--python", python]
    done = subprocess.run(
        [*command, "--architecture", platform.machine()],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")},
        timeout=600,
    )
    assert done.returncode == 0, done.stdout
    return out


@pytest.fixture
def metalmark_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A METALMARK_HOME of this test's own, empty."""
    home = tmp_path / "home"
    monkeypatch.setenv("METALMARK_HOME", str(home))
    return home


@pytest.fixture
def home_with_kernel(metalmark_home: Path, guest_kernels: Path) -> Path:
    """A METALMARK_HOME of this test's own in which microVMs can boot."""
    state = metalmark_home / "state"
    state.mkdir(mode=0o700, parents=True)
    (state / "kernels").symlink_to(guest_kernels)
    return metalmark_home
