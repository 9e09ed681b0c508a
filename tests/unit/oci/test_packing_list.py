from __future__ import annotations

import os
from pathlib import Path

import pytest

from metalmark.model import InputError
from metalmark.oci import PackSource
from metalmark.oci.packing_list import list_entries


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree/b").mkdir(parents=True)
    (tmp_path / "tree/b/x").write_bytes(b"12345")
    (tmp_path / "tree/a").symlink_to("b")
    return tmp_path / "tree"


def names(*sources: str) -> list[str]:
    return [os.fsdecode(entry.name) for entry in list_entries(tuple(PackSource.parse(source) for source in sources))]


def test_entries_are_sorted_and_links_are_not_followed(tree: Path) -> None:
    assert names(str(tree)) == ["a", "b", "b/x"]
    link, _, file = list_entries((PackSource(path=tree),))
    assert link.link == b"b"
    assert file.size_bytes == 5


def test_folders_above_a_target_are_made(tree: Path) -> None:
    entries = list_entries((PackSource.parse(f"{tree}/b/x:/p/q/r"),))
    assert [(os.fsdecode(entry.name), entry.path is None) for entry in entries] == [
        ("p", True), ("p/q", True), ("p/q/r", False),
    ]  # fmt: skip


def test_a_folder_with_a_target_brings_its_own_mode(tree: Path) -> None:
    tree.chmod(0o711)
    first = list_entries((PackSource.parse(f"{tree}:/opt"),))[0]
    assert (first.name, first.mode & 0o777, first.path) == (b"opt", 0o711, tree)


def test_a_file_that_replaces_a_folder_takes_its_content_away(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert names(str(tree), f"{tmp_path}/file:/b") == ["a", "b"]


def test_a_path_with_a_colon_is_taken_whole(tmp_path: Path) -> None:
    (tmp_path / "a:b").write_bytes(b"")
    assert names(f"{tmp_path}/a:b") == ["a:b"]
    assert names(f"{tmp_path}/a:b:/c") == ["c"]


def test_a_link_named_by_itself_stays_a_link(tree: Path) -> None:
    (entry,) = list_entries((PackSource(path=tree / "a"),))
    assert (entry.name, entry.link) == (b"a", b"b")


def test_a_relative_target_is_refused_with_the_absolute_one(tree: Path) -> None:
    with pytest.raises(InputError) as caught:
        PackSource.parse(f"{tree}:opt")
    assert caught.value.hint.endswith(":/opt")
