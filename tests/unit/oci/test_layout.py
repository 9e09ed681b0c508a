from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from metalmark.model import Digest, ImageNotFound, InputError, NotAnImage, Platform
from metalmark.oci import ImageCache, ResolvedImage, parse_source, pull
from metalmark.testing.images import FakeImage, FakeLayer, index_of, write_layout

pytestmark = pytest.mark.anyio
Take = Callable[..., Awaitable[ResolvedImage]]
AMD64 = Platform("linux", "amd64")


@pytest.mark.parametrize("what", ["blobs", "index.json"])
async def test_a_missing_part_is_named(cache: ImageCache, tmp_path: Path, what: str, base: FakeLayer) -> None:
    image = FakeImage(layers=[base])
    layout = write_layout(tmp_path / "l", image)
    source = parse_source(str(layout))
    if what == "blobs":
        (layout / "blobs/sha256" / Digest.of(base.blob).hex).unlink()
    else:
        (layout / "index.json").unlink()
    with pytest.raises(NotAnImage, match=what):
        await pull(source, cache=cache, platform=AMD64)


async def test_another_layout_version_is_refused(take: Take, tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "l", FakeImage())
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "2.0.0"}')
    with pytest.raises(NotAnImage, match="imageLayoutVersion"):
        await take(layout)


async def test_of_several_images_one_is_chosen_by_name_or_digest(take: Take, tmp_path: Path) -> None:
    one, two = FakeImage(config={"Cmd": ["1"]}), FakeImage(config={"Cmd": ["2"]})
    layout = write_layout(
        tmp_path / "l", one, two, index=index_of([one.descriptor(tag="v1"), two.descriptor(tag="v2")])
    )
    assert (await take(f"oci:{layout}:v2")).digest == two.manifest
    assert (await take(f"{layout}@{one.manifest}")).digest == one.manifest
    with pytest.raises(InputError, match="several images: 'v1', 'v2'"):
        await take(layout)
    with pytest.raises(ImageNotFound, match=r"no image 'v3'.*'v1', 'v2'"):
        await take(f"oci:{layout}:v3")
    with pytest.raises(ImageNotFound, match="no image"):
        await take(write_layout(tmp_path / "empty", index=index_of([])))
