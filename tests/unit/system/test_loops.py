from __future__ import annotations

from pathlib import Path

from metalmark.system import read_loops


def test_only_devices_in_use_are_listed(tmp_path: Path) -> None:
    for name, backing in (("loop0", None), ("loop1", "/a file\n"), ("loop10", "/gone (deleted)\n"), ("sda", "/no\n")):
        folder = tmp_path / "sys/block" / name
        folder.mkdir(parents=True)
        if backing:
            (folder / "loop").mkdir()
            (folder / "loop/backing_file").write_text(backing)
    found = {(loop.device.name, loop.backing_file) for loop in read_loops(tmp_path)}
    assert found == {("loop1", "/a file"), ("loop10", "/gone (deleted)")}
