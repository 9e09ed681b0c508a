from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from metalmark.model import Digest, NotAnImage
from metalmark.oci import ResolvedImage
from metalmark.testing.images import FakeImage, FakeLayer, write_layout

pytestmark = pytest.mark.anyio
Take = Callable[..., Awaitable[ResolvedImage]]


async def test_a_blob_that_links_out_of_the_layout_is_not_read(take: Take, tmp_path: Path, base: FakeLayer) -> None:
    image = FakeImage(layers=[base])
    layout = write_layout(tmp_path / "l", image)
    path = layout / "blobs/sha256" / Digest.of(base.blob).hex
    outside = tmp_path / "outside"
    path.rename(outside)
    path.symlink_to(outside)
    with pytest.raises(NotAnImage, match="inside"):
        await take(layout)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(NotAnImage, match="regular"):
        await take(layout)
    path.unlink()
    (layout / "moved").write_bytes(base.blob)
    path.symlink_to("../../moved")
    assert (await take(layout)).digest == image.manifest
