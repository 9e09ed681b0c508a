"""What tests of updates share: a real artifact of this checkout."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


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
