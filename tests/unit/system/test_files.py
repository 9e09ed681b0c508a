from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metalmark.model import NoSpace
from metalmark.system import clone, files, free_bytes, locked, no_space_told, published, try_locked


def test_what_is_published_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "blob"
    target.write_bytes(b"old")
    with published(target, mode=0o640) as stream:
        stream.write(b"new")
        stream.flush()
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [target]


def test_after_an_error_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), published(tmp_path / "blob") as stream:
        stream.write(b"half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_the_longest_file_name_can_be_published(tmp_path: Path) -> None:
    with published(tmp_path / ("n" * 255)) as stream:
        stream.write(b"x")
    assert (tmp_path / ("n" * 255)).exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_file_system_is_told_with_a_way_out(number: int, tmp_path: Path) -> None:
    with pytest.raises(NoSpace, match="blob") as caught, published(tmp_path / "blob"):
        raise OSError(number, "full")
    assert "image gc" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), no_space_told(tmp_path):
        raise PermissionError(errno.EACCES, "no")


def test_a_lock_keeps_others_out_until_it_is_given_back(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with locked(lock):
        with try_locked(lock) as got:
            assert not got
        with lock.open("ab") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
    with try_locked(lock) as got:
        assert got


def test_a_shared_lock_admits_readers_only(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with locked(lock, shared=True), locked(lock, shared=True), try_locked(lock) as got:
        assert not got


def blocks(path: Path) -> int:
    return path.stat().st_blocks


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.integers(0, 2**20), st.binary(min_size=1, max_size=9000)), max_size=4), st.integers(0, 2**21)
)
def test_a_sparse_copy_has_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[tuple[int, bytes]], size: int
) -> None:
    folder = tmp_path_factory.mktemp("sparse")
    source, target = folder / "source", folder / "target"
    with source.open("wb") as stream:
        for offset, data in pieces:
            stream.seek(offset)
            stream.write(data)
        stream.truncate(size)
    with source.open("rb") as reader, target.open("wb") as writer:
        files._copy_sparse(reader.fileno(), writer.fileno())
    assert target.read_bytes() == source.read_bytes()


def test_holes_stay_holes(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as stream:
        stream.truncate(64 * 1024**2)
        stream.seek(32 * 1024**2)
        stream.write(b"middle")
    assert clone(source, target) in {"reflink", "sparse copy"}
    assert target.stat().st_size == source.stat().st_size
    assert target.read_bytes() == source.read_bytes()
    assert blocks(target) * 512 < 1024**2


def test_an_existing_target_is_not_touched(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"s")
    target.write_bytes(b"t")
    with pytest.raises(FileExistsError):
        clone(source, target)
    assert target.read_bytes() == b"t"


def test_a_clone_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    def no_reflink(*_args: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "no")

    monkeypatch.setattr(files, "_copy_sparse", full)
    monkeypatch.setattr(fcntl, "ioctl", no_reflink)
    (tmp_path / "source").write_bytes(b"s")
    with pytest.raises(NoSpace):
        clone(tmp_path / "source", tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_free_space_is_what_a_user_may_write(tmp_path: Path) -> None:
    status = os.statvfs(tmp_path)
    assert 0 <= free_bytes(tmp_path) <= status.f_bfree * status.f_frsize
