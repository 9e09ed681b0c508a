from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from metalmark.sandbox.kvm import KvmState, probe_kvm

pytestmark = pytest.mark.anyio


async def test_the_probe_runs_nothing_of_the_folder_it_is_started_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "enum", "metalmark"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a file of the folder was run')")
    monkeypatch.chdir(tmp_path)
    found = await probe_kvm(Path(os.devnull), limit_s=30)
    assert (found.state, found.reason) == (KvmState.EMULATED, f"/dev/null cannot be used: {os.strerror(errno.ENOTTY)}")
