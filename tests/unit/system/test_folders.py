from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from metalmark.model import NoPermission, StableError
from metalmark.system import FORMAT_VERSION, ensure_private, folders


def test_root_uses_the_systems_folders() -> None:
    found = folders({}, uid=0)
    assert found.state == Path("/var/lib/metalmark")
    assert found.cache == Path("/var/cache/metalmark")
    assert found.run == Path("/run/metalmark")
    assert found.config == Path("/etc/metalmark")


def test_a_user_has_the_xdg_defaults() -> None:
    found = folders({"HOME": "/home/u"}, uid=1000)
    assert found.state == Path("/home/u/.local/state/metalmark")
    assert found.cache == Path("/home/u/.cache/metalmark")
    assert found.run == Path("/home/u/.local/state/metalmark/run")
    assert found.config == Path("/home/u/.config/metalmark")


def test_xdg_variables_move_them_and_relative_ones_are_ignored() -> None:
    env = {"HOME": "/home/u", "XDG_CACHE_HOME": "/big", "XDG_RUNTIME_DIR": "/run/user/7", "XDG_STATE_HOME": "here"}
    found = folders(env, uid=7)
    assert found.cache == Path("/big/metalmark")
    assert found.run == Path("/run/user/7/metalmark")
    assert found.state == Path("/home/u/.local/state/metalmark")


@pytest.mark.parametrize("uid", [0, 1000])
def test_one_variable_moves_all_four(uid: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = folders({"METALMARK_HOME": "mm"}, uid=uid)
    assert [found.state, found.cache, found.run, found.config] == [
        tmp_path / "mm" / name for name in ("state", "cache", "run", "config")
    ]


def test_a_private_folder_is_private_and_marked(tmp_path: Path) -> None:
    folder = ensure_private(tmp_path / "a" / "b")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert (folder / "format-version").read_text() == FORMAT_VERSION
    assert ensure_private(folder) == folder
    assert [entry.name for entry in folder.iterdir()] == ["format-version"]


def test_a_later_format_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "format-version").write_text("2\n")
    with pytest.raises(StableError, match="format '2'"):
        ensure_private(tmp_path)
    assert (tmp_path / "format-version").read_text() == "2\n"


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StableError, match="not a folder"):
        ensure_private(tmp_path / "file")
    with pytest.raises(StableError, match="not a folder"):
        ensure_private(tmp_path / "file" / "below")


def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(NoPermission, match="another user's") as caught:
        ensure_private(tmp_path)
    assert "METALMARK_HOME" in caught.value.hint


def test_what_cannot_be_made_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_named: object) -> None:
        raise PermissionError(13, "no")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(NoPermission, match="cannot be written"):
        ensure_private(tmp_path / "x")
