from __future__ import annotations

import os
from pathlib import Path

import pytest

from metalmark.model import Digest, Platform
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


async def test_the_least_recently_used_go_first_and_what_others_need_stays(tmp_path: Path) -> None:
    old, new = image("old"), image("new")
    with ImageCache(tmp_path / "cache") as cache:
        await put(tmp_path, cache, old, 1000)
        await put(tmp_path, cache, new, 2000)
    with ImageCache(tmp_path / "cache") as cache:
        assert [held.record.digest for held in cache.images_held()] == [new.manifest, old.manifest]
        whole = collect(cache, max_bytes=1 << 40)
        assert (whole.removed, whole.freed_bytes) == ((), 0)
        told = collect(cache, max_bytes=whole.kept_bytes - 1, dry_run=True)
        assert [held.record.digest for held in told.removed] == [old.manifest]
        assert len(cache.images_held()) == 2
        done = collect(cache, max_bytes=whole.kept_bytes - 1)
        assert (done.freed_bytes, done.kept_bytes) == (told.freed_bytes, told.kept_bytes)
        assert done.freed_bytes + done.kept_bytes == whole.kept_bytes
        assert {digest for digest, _ in cache.stored()} == set(new.blobs)
        assert cache.find(old.manifest, AMD64) is None
        found = cache.find(new.manifest, AMD64)
        assert found is not None
        assert found.size_bytes == sum(map(len, new.blobs.values()))


async def test_what_is_in_use_stays_until_its_cache_is_closed(tmp_path: Path) -> None:
    fake = image("used")
    user = ImageCache(tmp_path / "cache")
    await put(tmp_path, user, fake, 1000)
    with ImageCache(tmp_path / "cache") as cleaner:
        kept = collect(cleaner, max_bytes=0)
        assert (kept.removed, kept.in_use) == ((), 1)
        assert {digest for digest, _ in cleaner.stored()} == set(fake.blobs)
        user.close()
        assert [held.record.digest for held in collect(cleaner, max_bytes=0).removed] == [fake.manifest]
        assert list(cleaner.stored()) == []
        assert not [
            path for path in cleaner.images.rglob("*") if path.is_file() and path.parent.name in ("layers", "leases")
        ]


async def test_blobs_of_a_pull_under_way_stay_and_stray_ones_go(tmp_path: Path) -> None:
    with ImageCache(tmp_path / "cache") as puller, ImageCache(tmp_path / "cache") as cleaner:
        wanted, stray = Digest.of(b"wanted"), Digest.of(b"stray")
        puller.protect([wanted])
        puller.put(wanted, b"wanted", what="it")
        puller.put(stray, b"stray", what="it")
        assert collect(cleaner, max_bytes=1 << 40).freed_bytes == len(b"stray")
        assert [digest for digest, _ in cleaner.stored()] == [wanted]


async def test_an_empty_cache_is_no_error(tmp_path: Path) -> None:
    with ImageCache(tmp_path / "none") as cache:
        assert cache.images_held() == []
        assert collect(cache, max_bytes=0).kept_bytes == 0
    assert not (tmp_path / "none").exists()
