from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from metalmark.model import Digest, DigestMismatch, LayerRefused, MetalmarkError
from metalmark.oci import ImageCache, ResolvedImage
from metalmark.testing.images import OCI_LAYER, FakeImage, FakeLayer, tar_of, write_layout

pytestmark = pytest.mark.anyio
Take = Callable[..., Awaitable[ResolvedImage]]
TAR = tar_of({"bin/a": b"a" * 3000})
BASE = FakeLayer.gzipped(TAR)


def stored(cache: ImageCache) -> set[Digest]:
    return {digest for digest, _ in cache.stored()}


def litter(cache: ImageCache) -> list[Path]:
    partial = cache.images / "partial"
    return [*partial.iterdir(), *cache.images.rglob("*.partial")] if partial.is_dir() else []


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        (FakeLayer(blob=BASE.blob, diff_id=Digest.of(b"else"), media_type=BASE.media_type), DigestMismatch),
        (FakeLayer(blob=BASE.blob[:-20], diff_id=BASE.diff_id, media_type=BASE.media_type), LayerRefused),
        (FakeLayer(blob=b"\x1f\x8b" + bytes(100), diff_id=BASE.diff_id), LayerRefused),
        (FakeLayer(blob=b"", diff_id=BASE.diff_id), DigestMismatch),
    ],
)
async def test_a_layer_that_is_not_what_it_says_is_named_and_leaves_nothing(
    take: Take, cache: ImageCache, tmp_path: Path, broken: FakeLayer, error: type[MetalmarkError]
) -> None:
    with pytest.raises(error, match=str(Digest.of(broken.blob))):
        await take(write_layout(tmp_path / "l", FakeImage(layers=[broken])))
    assert Digest.of(broken.blob) not in stored(cache)
    assert not litter(cache)
    assert not cache.images_held()


@pytest.mark.parametrize("damage", [b"x" * len(BASE.blob), BASE.blob + b"\0", BASE.blob[:-1], b""])
async def test_a_local_blob_that_was_changed_is_found_out(
    take: Take, cache: ImageCache, tmp_path: Path, damage: bytes, base: FakeLayer
) -> None:
    layout = write_layout(tmp_path / "l", FakeImage(layers=[base]))
    (layout / "blobs/sha256" / Digest.of(base.blob).hex).write_bytes(damage)
    with pytest.raises((DigestMismatch, LayerRefused), match=str(Digest.of(base.blob))):
        await take(layout)
    assert not litter(cache)


async def test_a_wrong_size_in_the_manifest_is_found_out(take: Take, tmp_path: Path, base: FakeLayer) -> None:
    digest = str(Digest.of(base.blob))
    for size in (len(base.blob) - 1, len(base.blob) + 1):
        image = FakeImage(
            layers=[base], manifest_fields={"layers": [{"mediaType": OCI_LAYER, "digest": digest, "size": size}]}
        )
        with pytest.raises(DigestMismatch, match=digest):
            await take(write_layout(tmp_path / str(size), image))
