from __future__ import annotations

import os
from pathlib import Path

import pytest

from metalmark.model import Digest, DigestMismatch, Platform
from metalmark.oci import ImageCache, collect, parse_source, pull
from metalmark.testing.images import FakeImage, FakeLayer, tar_of, write_layout

pytestmark = pytest.mark.anyio
AMD64 = Platform("linux", "amd64")
SHARED = FakeLayer.plain(tar_of({"shared": b"s" * 10_000}))


def image(name: str) -> FakeImage:
    return FakeImage(layers=[SHARED, FakeLayer.plain(tar_of({name: name.encode() * 5000}))], config={"Cmd": [name]})


async def put(folder: Path, cache: ImageCache, fake: FakeImage, used_s: float) -> None:
    layout = write_layout(folder / str(fake.manifest.hex), fake)
    await pull(parse_source(str(layout)), cache=cache, platform=AMD64)
    for held in cache.images_held():
        if held.record.digest == fake.manifest:
            for path in held.files:
                os.utime(path, (used_s, used_s))


async def test_what_a_dead_process_left_is_swept(tmp_path: Path) -> None:
    with ImageCache(tmp_path / "cache") as cache:
        cache.prepare()
        partial = cache.images / "partial" / f"sha256-{'0' * 64}"
        partial.write_bytes(b"half")
        lease = cache.images / "leases" / "dead"
        lease.write_text(str(Digest.of(b"x")))
        cache.put(Digest.of(b"x"), b"x", what="it")
        async with cache.exclusive(Digest("sha256", "0" * 64)):
            cache.sweep()
            assert partial.exists(), "its lock is held: somebody writes it"
        collect(cache, max_bytes=1 << 40)
        assert not partial.exists()
        assert not lease.exists()
        assert list(cache.stored()) == []


async def test_a_document_that_was_never_published_is_swept_when_nobody_can_be_writing_it(tmp_path: Path) -> None:
    with ImageCache(tmp_path / "cache") as cache:
        cache.prepare()
        old, new = (cache.blobs / "sha256" / f".{name}.partial" for name in ("old", "new"))
        old.parent.mkdir()
        for path in (old, new):
            path.write_bytes(b"half")
        os.utime(old, (1, 1))
        collect(cache, max_bytes=1 << 40)
        assert (old.exists(), new.exists()) == (False, True)


async def test_a_document_is_verified_before_it_is_kept(tmp_path: Path) -> None:
    with ImageCache(tmp_path / "cache") as cache:
        cache.prepare()
        with pytest.raises(DigestMismatch):
            cache.put(Digest.of(b"a"), b"b", what="it")
        assert list(cache.stored()) == []


async def test_folders_are_private(tmp_path: Path) -> None:
    with ImageCache(tmp_path / "cache") as cache:
        await put(tmp_path, cache, image("x"), 1)
        for path in (cache.folder, cache.images, cache.blobs):
            assert path.stat().st_mode & 0o777 == 0o700
        assert (cache.images / "format-version").read_text() == "1\n"
