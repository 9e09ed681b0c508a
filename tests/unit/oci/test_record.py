from __future__ import annotations

import os
from pathlib import Path

import pytest

from metalmark.model import Platform
from metalmark.oci import ImageCache, parse_source, pull
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


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"format": 99}', b'{"format": 1}', b"\xff"])
async def test_a_damaged_record_means_pull_again(tmp_path: Path, damage: bytes) -> None:
    fake = image("x")
    with ImageCache(tmp_path / "cache") as cache:
        await put(tmp_path, cache, fake, 1000)
        (held,) = cache.images_held()
        held.files[0].write_bytes(damage)
        assert cache.find(fake.manifest, AMD64) is None
        assert cache.images_held() == []
        await put(tmp_path, cache, fake, 1000)
        assert cache.find(fake.manifest, AMD64) is not None


async def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    from metalmark.oci.record import ImageRecord

    fake = FakeImage(
        layers=[SHARED],
        config={
            "Entrypoint": ["a"],
            "Cmd": ["b"],
            "Env": ["C=d"],
            "WorkingDir": "/e",
            "User": "f",
            "Labels": {"g": "h"},
        },
    )
    with ImageCache(tmp_path / "cache") as cache:
        await put(tmp_path, cache, fake, 1000)
        record = cache.find(fake.manifest, AMD64)
        assert record is not None
        assert ImageRecord.from_json(record.to_json()) == record
        assert record.config.labels == {"g": "h"}
