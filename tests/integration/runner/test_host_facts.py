"""Tools that are really started."""

from __future__ import annotations

from pathlib import Path

import pytest

from metalmark.runner import host_facts
from metalmark.runner.host_facts import HostFacts, read_host_facts
from metalmark.system import Folders

pytestmark = pytest.mark.anyio


def tool(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


async def read(tmp_path: Path) -> HostFacts:
    folders = Folders(state=tmp_path / "s", cache=tmp_path / "c", run=tmp_path / "r", config=tmp_path / "e")
    return await read_host_facts(
        folders=folders, environment={"PATH": str(tmp_path)}, root=tmp_path / "root", machine="x86_64"
    )


async def test_a_tool_that_hangs_or_is_broken_is_not_usable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_facts, "_TOOL_LIMIT_S", 0.5)
    tool(tmp_path, "runc", "#!/bin/sh\nsleep 60\n")
    tool(tmp_path, "crun", "#!/no/such/interpreter\n")
    tool(tmp_path, "mke2fs", "\x7fELF of another machine")
    tool(tmp_path, "mksquashfs", "#!/bin/sh\necho 'mksquashfs version 4.4 (2019/08/29)'; exit 1\n")
    tool(tmp_path, "passt", "#!/bin/sh\nkill -SEGV $$\n")
    facts = await read(tmp_path)
    assert "did not end" in facts.tool("runc").error
    for name in ("crun", "mke2fs", "passt"):
        assert facts.tool(name).path == str(tmp_path / name)
        assert facts.tool(name).error, name
    assert facts.tool("mksquashfs").usable
    assert facts.tool("mksquashfs").version == "4.4"
    assert not facts.tool("qemu-system-x86_64").usable


async def test_a_file_that_may_not_be_executed_is_no_tool(tmp_path: Path) -> None:
    tool(tmp_path, "runc", "#!/bin/sh\n")
    (tmp_path / "runc").chmod(0o644)
    assert (await read(tmp_path)).tool("runc").path is None
