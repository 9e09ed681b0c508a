from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from metalmark.model import Digest, DigestMismatch, Platform, Progress, RegistryUnavailable, UnsupportedImage
from metalmark.oci import Compression, ImageCache, Patience, RegistryAccess, ResolvedImage
from metalmark.testing.images import FakeImage, FakeLayer, tar_of, write_layout

pytestmark = pytest.mark.anyio
Take = Callable[..., Awaitable[ResolvedImage]]


def stored(cache: ImageCache) -> set[Digest]:
    return {digest for digest, _ in cache.stored()}


def litter(cache: ImageCache) -> list[Path]:
    partial = cache.images / "partial"
    return [*partial.iterdir(), *cache.images.rglob("*.partial")] if partial.is_dir() else []


async def test_a_layout_comes_in_whole_and_verified(
    take: Take, cache: ImageCache, tmp_path: Path, base: FakeLayer
) -> None:
    second = FakeLayer.plain(tar_of({"b": b"b"}))
    image = FakeImage(layers=[base, second], config={"Cmd": ["/bin/a"], "Env": ["A=1"]})
    events: list[Progress] = []
    found = await take(write_layout(tmp_path / "l", image), progress=events.append)
    assert found.digest == image.manifest
    assert not found.cached
    assert found.config.cmd == ("/bin/a",)
    assert [layer.diff_id for layer in found.layers] == [base.diff_id, second.diff_id]
    assert [layer.compression for layer in found.layers] == [Compression.GZIP, Compression.NONE]
    assert [layer.path.read_bytes() for layer in found.layers] == [base.blob, second.blob]
    assert stored(cache) == set(image.blobs)
    assert {event.task for event in events if event.finished and event.done == event.total} == {
        event.task for event in events
    }
    assert not litter(cache)


async def test_a_second_time_nothing_is_read_but_the_index(take: Take, tmp_path: Path, base: FakeLayer) -> None:
    image = FakeImage(layers=[base])
    layout = write_layout(tmp_path / "l", image)
    first = await take(layout)
    (layout / "blobs/sha256" / Digest.of(base.blob).hex).unlink()
    second = await take(layout)
    assert second.cached
    assert second.layers == first.layers


async def test_a_layer_that_two_images_share_is_stored_once_and_not_verified_again(
    take: Take, tmp_path: Path, base: FakeLayer
) -> None:
    await take(write_layout(tmp_path / "a", FakeImage(layers=[base])))
    other = write_layout(tmp_path / "b", FakeImage(layers=[base, base], config={"Cmd": ["other"]}))
    (other / "blobs/sha256" / Digest.of(base.blob).hex).unlink()
    found = await take(other)
    assert len(found.layers) == 2
    assert not found.cached


async def test_a_cached_layer_of_which_nothing_is_remembered_is_verified_again(
    take: Take, cache: ImageCache, tmp_path: Path, base: FakeLayer
) -> None:
    found = await take(write_layout(tmp_path / "a", FakeImage(layers=[base])))
    (facts,) = (cache.images / "layers/sha256").iterdir()
    facts.unlink()
    wrong = FakeLayer(blob=base.blob, diff_id=Digest.of(b"else"), media_type=base.media_type)
    with pytest.raises(DigestMismatch, match="unpacks to"):
        await take(write_layout(tmp_path / "b", FakeImage(layers=[wrong])))
    again = await take(write_layout(tmp_path / "c", FakeImage(layers=[base], config={"Cmd": ["x"]})))
    assert again.layers == found.layers


async def test_foreign_layers_are_refused_before_anything_is_fetched(
    take: Take, cache: ImageCache, tmp_path: Path, base: FakeLayer
) -> None:
    foreign = FakeLayer(
        blob=base.blob, diff_id=base.diff_id, media_type="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    )
    with pytest.raises(UnsupportedImage, match="foreign"):
        await take(write_layout(tmp_path / "l", FakeImage(layers=[foreign])))
    assert not stored(cache)


async def test_many_images_under_one_digest_reference_need_no_origin(
    take: Take, cache: ImageCache, tmp_path: Path, base: FakeLayer
) -> None:
    image = FakeImage(layers=[base])
    await take(write_layout(tmp_path / "l", image))
    # The host does not exist: only the cache can answer.
    found = await take(f"registry.invalid/app@{image.manifest}")
    assert found.cached
    assert found.reference == f"docker://registry.invalid/app@{image.manifest}"


async def test_a_digest_alone_opens_no_image_that_was_pulled_under_another_name(
    take: Take, cache: ImageCache, tmp_path: Path, base: FakeLayer
) -> None:
    image = FakeImage(layers=[base])
    layout = write_layout(tmp_path / "l", image)
    await take(layout)
    access = RegistryAccess(cached_for_all=False, patience=Patience(attempts=1))
    mine, theirs = (f"registry.invalid/{name}@{image.manifest}" for name in ("mine", "theirs"))
    with pytest.raises(RegistryUnavailable):
        await take(mine, access=access)
    platform = Platform("linux", "amd64")
    record = cache.find(image.manifest, platform)
    assert record is not None
    cache.remember(replace(record, references=(f"docker://{mine}",)), (image.manifest,), platform)
    assert (await take(mine, access=access)).cached
    with pytest.raises(RegistryUnavailable):
        await take(theirs, access=access)


async def test_no_image_record_survives_a_lost_blob(take: Take, tmp_path: Path, base: FakeLayer) -> None:
    image = FakeImage(layers=[base])
    layout = write_layout(tmp_path / "l", image)
    found = await take(layout)
    found.layers[0].path.unlink()
    again = await take(layout)
    assert not again.cached
    assert again.layers[0].path.read_bytes() == base.blob
    again.layers[0].path.write_bytes(b"short")
    assert (await take(layout)).layers[0].path.read_bytes() == base.blob
