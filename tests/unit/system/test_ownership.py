"""Who could change what is at a path."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from metalmark.system import open_to_others


@pytest.fixture
def program(tmp_path: Path) -> Path:
    found = tmp_path / "prefix/bin/python3"
    found.parent.mkdir(parents=True, mode=0o755)
    found.write_text("")
    found.chmod(0o755)
    return found


def test_what_only_its_owner_can_write_is_closed(program: Path) -> None:
    assert open_to_others(program) is None
    assert open_to_others(program.parent / "later/still") is None


@pytest.mark.parametrize("mode", [0o775, 0o757])
@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_file_or_a_folder_on_the_way_is_found(program: Path, mode: int, steps: int) -> None:
    place = [program, *program.parents][steps]
    place.chmod(mode)
    assert open_to_others(program) == place


def test_a_sticky_folder_is_harmless_on_the_way_and_not_at_the_end(program: Path) -> None:
    program.parent.chmod(0o1777)
    assert open_to_others(program) is None
    assert open_to_others(program.parent) == program.parent


def test_neither_end_of_a_link_is_forgotten(program: Path, tmp_path: Path) -> None:
    holder = tmp_path / "links"
    holder.mkdir(mode=0o755)
    link = holder / "python"
    link.symlink_to(program)
    assert open_to_others(link) is None
    holder.chmod(0o777)
    assert open_to_others(link) == holder
    holder.chmod(0o755)
    program.parent.chmod(0o777)
    assert open_to_others(link) == program.parent


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder away, which root alone can")
def test_another_owner_is_found(program: Path) -> None:
    os.chown(program.parent, 12345, 0)
    assert open_to_others(program) == program.parent
