"""Blobs in a folder and in memory. An object store's network is the library's own affair."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from metalmark.model import InputError, NotFound, StoreAway, StoreFull, TooLarge
from metalmark.store.blob_folder import CHUNK_BYTES
from metalmark.store.blobs import Blobs


@pytest.fixture(params=["folder", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    return Blobs.open(tmp_path / "blobs") if request.param == "folder" else Blobs.in_memory()


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def test_what_is_put_is_got_streamed_measured_and_listed(blobs: Blobs) -> None:
    async def main() -> None:
        body = os.urandom(3 * CHUNK_BYTES + 17)
        assert await blobs.put("a/b", body) == len(body)
        assert await blobs.put("a/c", pieces(b"x" * 10, b"", b"y")) == 11
        assert await blobs.put("ab", b"") == 0
        assert await blobs.get("a/b") == body
        assert b"".join([piece async for piece in blobs.stream("a/b")]) == body
        assert await blobs.get("a/c") == b"x" * 10 + b"y"
        assert [(facts.key, facts.size_bytes) for facts in await blobs.below("a")] == [("a/b", len(body)), ("a/c", 11)]
        facts = await blobs.facts("ab")
        assert facts is not None and facts.size_bytes == 0

    anyio.run(main)


def test_putting_again_replaces_and_deleting_is_idempotent(blobs: Blobs) -> None:
    async def main() -> None:
        await blobs.put("k", b"one")
        await blobs.put("k", b"2")
        assert await blobs.get("k") == b"2"
        await blobs.delete("k", "never")
        assert await blobs.facts("k") is None
        with pytest.raises(NotFound):
            await blobs.get("k")
        with pytest.raises(NotFound):
            await anext(aiter(blobs.stream("k")))

    anyio.run(main)


def test_a_source_that_fails_leaves_what_was_there(blobs: Blobs, tmp_path: Path) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"z" * (9 * 1024 * 1024)
        raise TooLarge("the output", 1)

    async def main() -> None:
        await blobs.put("k", b"old")
        with pytest.raises(TooLarge):
            await blobs.put("k", failing())
        assert await blobs.get("k") == b"old"
        with pytest.raises(TooLarge):
            await blobs.put("new", failing())
        assert await blobs.facts("new") is None

    anyio.run(main)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] in (["k"], [])


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/../b", "A", "a\0", "a b", ".a", "a" * 513, "a%2f"])
def test_a_key_that_could_leave_the_folder_is_refused(blobs: Blobs, key: str) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="not a key"):
            await blobs.put(key, b"x")
        with pytest.raises(ValueError, match="not a key"):
            await blobs.get(key)

    anyio.run(main)


def test_a_blob_over_the_limit_is_not_read(blobs: Blobs) -> None:
    async def main() -> None:
        await blobs.put("k", b"12345")
        assert await blobs.get("k", limit_bytes=5) == b"12345"
        with pytest.raises(TooLarge):
            await blobs.get("k", limit_bytes=4)

    anyio.run(main)


def test_the_folder_is_private_and_survives_reopening(tmp_path: Path) -> None:
    async def main() -> None:
        await Blobs.open(tmp_path / "deep" / "blobs").put("a/b", b"kept")
        assert await Blobs.open(f"file://{tmp_path}/deep/blobs").get("a/b") == b"kept"

    anyio.run(main)
    assert (tmp_path / "deep" / "blobs").stat().st_mode & 0o777 == 0o700


def test_a_folder_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreAway):
        Blobs.open(tmp_path / "file")


def test_a_full_file_system_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def main() -> None:
        for data in (b"x", pieces(b"x")):
            with pytest.raises(StoreFull):
                await Blobs.open(tmp_path).put("a", data)

    monkeypatch.setattr(os, "fsync", full)
    anyio.run(main)


@pytest.mark.parametrize("location", ["ftp://x/y", "memory://", "s3://"])
def test_unknown_storage_is_refused(location: str) -> None:
    with pytest.raises(InputError):
        Blobs.open(location)


def test_an_object_store_is_opened_without_a_network() -> None:
    assert isinstance(Blobs.open("s3://bucket/prefix"), Blobs)


def test_blobs_are_joined_when_their_checksum_is_right(blobs: Blobs, tmp_path: Path) -> None:
    async def main() -> None:
        await blobs.put("parts/0", b"ab")
        await blobs.put("parts/1", b"c")
        right = hashlib.sha256(b"abc").hexdigest()
        assert not await blobs.join(["parts/1", "parts/0"], "x/y/whole", checksum=right)
        assert await blobs.facts("x/y/whole") is None
        assert await blobs.join(["parts/0", "parts/1"], "x/y/whole", checksum=right)
        assert await blobs.get("x/y/whole") == b"abc"
        with pytest.raises(NotFound):
            await blobs.join(["parts/9"], "other", checksum=right)
        assert [facts.key for facts in await blobs.below("x")] == ["x/y/whole"]

    anyio.run(main)
    assert not list(tmp_path.rglob("*.partial"))
