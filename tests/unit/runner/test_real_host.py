from __future__ import annotations

from pathlib import Path

import pytest

from metalmark.model import SandboxUnavailable
from metalmark.runner.real_host import host_firecracker
from metalmark.sandbox import DriverSettings
from metalmark.system import Folders


def settings(tmp_path: Path, machine: str) -> DriverSettings:
    folders = Folders(state=tmp_path / "s", cache=tmp_path / "c", run=tmp_path / "r", config=tmp_path / "e")
    return DriverSettings(folders=folders, machine=machine)


def test_the_release_is_the_pinned_one_and_not_there_yet(tmp_path: Path) -> None:
    release = host_firecracker(settings(tmp_path, "aarch64"))
    assert release.version == "v1.15.1"
    assert release.installed() is None


@pytest.mark.anyio
async def test_other_machines_have_no_release_and_that_is_no_error_before_it_is_wanted(tmp_path: Path) -> None:
    release = host_firecracker(settings(tmp_path, "riscv64"))
    assert release.installed() is None
    with pytest.raises(SandboxUnavailable, match="riscv64"):
        await release.fetch(tmp_path)
    with pytest.raises(SandboxUnavailable, match="riscv64"):
        await release.install(tmp_path / "archive")
