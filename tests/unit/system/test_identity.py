from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from metalmark.system import boot_id, identity_of, is_alive, own_identity, start_ticks


def stat_line(tmp_path: Path, name: str, state: str) -> Path:
    folder = tmp_path / "42"
    folder.mkdir()
    rest = " ".join(["1"] * 18)
    (folder / "stat").write_text(f"42 ({name}) {state} {rest} 987654 0 0\n")
    return tmp_path


@pytest.mark.parametrize("name", ["sh", "a b", ") R 1 (", "x) Z 5"])
def test_names_of_programs_do_not_confuse(tmp_path: Path, name: str) -> None:
    assert start_ticks(42, stat_line(tmp_path, name, "S")) == 987654


@pytest.mark.parametrize("state", ["Z", "X"])
def test_the_dead_have_no_start(tmp_path: Path, state: str) -> None:
    assert start_ticks(42, stat_line(tmp_path, "sh", state)) is None


def test_nobody_has_no_start(tmp_path: Path) -> None:
    assert start_ticks(42, tmp_path) is None


def test_this_process_is_alive_and_its_successor_is_not_it() -> None:
    own = own_identity()
    assert own.pid == os.getpid()
    assert own == identity_of(own.pid)
    assert is_alive(own)
    assert not is_alive(dataclasses.replace(own, start_ticks=own.start_ticks + 1))
    assert not is_alive(dataclasses.replace(own, boot_id="another boot"))


def test_boot_id_is_read_without_its_newline(tmp_path: Path) -> None:
    place = tmp_path / "sys/kernel/random"
    place.mkdir(parents=True)
    (place / "boot_id").write_text("abc\n")
    assert boot_id(tmp_path) == "abc"
