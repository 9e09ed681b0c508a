from __future__ import annotations

from pathlib import Path

import pytest

from metalmark.runner import spool_folder


def test_folder_lasts_as_long_as_the_run(tmp_path: Path) -> None:
    with spool_folder(tmp_path / "spool") as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "stdout").touch()
    assert not folder.exists()


def test_folders_of_the_living_stay_and_those_of_the_dead_go(tmp_path: Path) -> None:
    dead = tmp_path / "spool/dead"
    dead.mkdir(parents=True)
    (dead / "in-use").touch()
    (dead / "output").write_bytes(b"x")
    unborn = tmp_path / "spool/unborn"
    unborn.mkdir()
    with spool_folder(tmp_path / "spool") as first, spool_folder(tmp_path / "spool") as second:
        assert not dead.exists()
        assert unborn.exists(), "somebody is just making it"
        assert first.exists()
        assert second.exists()
        assert first != second


def test_folder_goes_with_an_error_too(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="x"), spool_folder(tmp_path) as folder:
        raise ValueError("x")
    assert not folder.exists()
