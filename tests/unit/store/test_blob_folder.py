"""Files of a folder of blobs: whole or not there, made to last, and nothing of cut-off writes stays or is listed."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from metalmark.store import blob_folder
from metalmark.store.blob_folder import BlobFolder
from metalmark.store.blobs import Blobs

pytestmark = pytest.mark.anyio


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


async def test_what_is_put_is_there_under_its_name_and_nothing_else_is(tmp_path: Path) -> None:
    folder = BlobFolder(tmp_path)
    await folder.put("a/b/one", b"1", durable=True)
    await folder.put("a/b/two", pieces(b"2", b"", b"22"), durable=False)
    assert files_in(tmp_path) == ["a/b/one", "a/b/two"]
    assert (tmp_path / "a/b/two").read_bytes() == b"222"
    assert (tmp_path / "a/b/one").stat().st_mode & 0o777 == 0o600


async def test_a_blob_and_new_folders_are_synced_before_it_is_said_to_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, synced, sync = BlobFolder(tmp_path), [], os.fsync

    def remember(handle: int) -> None:
        synced.append(Path(f"/proc/self/fd/{handle}").resolve())
        sync(handle)

    monkeypatch.setattr(os, "fsync", remember)
    await folder.put("a/b/one", b"1", durable=True)
    file, *folders = synced
    assert file.name.startswith("one#"), "the bytes last before their name does"
    assert folders == [tmp_path / "a/b", tmp_path / "a", tmp_path]
    synced.clear()
    await folder.put("a/b/two", pieces(b"2"), durable=True)
    assert [path.name.partition("#")[0] for path in synced] == ["two", "b"]
    synced.clear()
    await folder.put("a/b/three", b"3", durable=False)
    assert synced == []


async def test_a_folder_that_somebody_removed_is_made_again(tmp_path: Path) -> None:
    folder = BlobFolder(tmp_path)
    await folder.put("a/one", b"1", durable=True)
    (tmp_path / "a/one").unlink()
    (tmp_path / "a").rmdir()
    await folder.put("a/one", b"2", durable=True)
    assert files_in(tmp_path) == ["a/one"]


async def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(handle: int) -> None:
        raise OSError(28, "full")

    folder = BlobFolder(tmp_path)
    await folder.put("a", b"old", durable=False)
    monkeypatch.setattr(os, "fsync", fails)
    for data in (b"new", pieces(b"n", b"ew")):
        with pytest.raises(OSError, match="full"):
            await folder.put("a", data, durable=True)
    assert files_in(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


async def test_what_a_killed_process_left_is_not_listed_and_goes_when_it_is_old(tmp_path: Path) -> None:
    blobs, now = Blobs.open(tmp_path), datetime.now(UTC)
    await blobs.put("a/whole", b"1")
    names = []
    for _ in range(2):
        unfinished, stream = BlobFolder(tmp_path.resolve())._begun(tmp_path / "a/cut")
        stream.write(b"half")
        stream.close()
        names.append(unfinished)
    old = (now - timedelta(days=2)).timestamp()
    os.utime(names[0], (old, old))
    assert [facts.key for facts in await blobs.below("a")] == ["a/whole"]
    assert [keys async for keys in blobs.older("a", now + timedelta(days=1))] == [("a/whole",)]
    assert await blobs.drop_unfinished(now - timedelta(days=1)) == 1
    assert files_in(tmp_path) == sorted(["a/whole", str(names[1].relative_to(tmp_path))])


async def test_ranges_are_read_as_far_as_there_is_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = BlobFolder(tmp_path)
    await folder.put("a", b"0123456789", durable=False)
    assert await folder.read_range("a", 2, 5) == b"234"
    assert await folder.read_range("a", 8, 50) == b"89"
    monkeypatch.setattr(blob_folder, "CHUNK_BYTES", 3)
    assert [piece async for piece in folder.stream("a", 1, 6)] == [b"123", b"45"]
    assert [piece async for piece in folder.stream("a", 7, None)] == [b"789"]
    with await folder.open("a") as file:
        assert file.read() == b"0123456789"
    with pytest.raises(FileNotFoundError):
        await folder.open("b")
