from __future__ import annotations

from pathlib import Path

import pytest

from metalmark.model import Digest, Platform, WrongPlatform
from metalmark.oci import ImageCache, inspect, parse_source
from metalmark.testing.images import OCI_INDEX, FakeImage, FakeLayer, index_of, write_layout

pytestmark = pytest.mark.anyio
AMD64 = Platform("linux", "amd64")


async def test_layers_are_described_without_being_read(cache: ImageCache, tmp_path: Path, base: FakeLayer) -> None:
    image = FakeImage(layers=[base], config={"Cmd": ["/x"]}, configuration_fields={"created": "2020-02-02T00:00:00Z"})
    layout = write_layout(tmp_path / "l", image)
    (layout / "blobs/sha256" / Digest.of(base.blob).hex).unlink()
    found = await inspect(parse_source(str(layout)), cache=cache, platform=AMD64)
    assert (found.digest, found.index_digest, found.platforms) == (image.manifest, None, (AMD64,))
    assert (found.config.cmd, found.created, found.size_bytes) == (("/x",), "2020-02-02T00:00:00Z", len(base.blob))
    assert [layer.diff_id for layer in found.layers] == [base.diff_id]
    assert not cache.images.exists()


async def test_an_index_is_named_with_all_that_it_offers(cache: ImageCache, tmp_path: Path) -> None:
    images = [FakeImage(), FakeImage(architecture="s390x")]
    inner = index_of([image.descriptor(platform=True) for image in images])
    entry = {"mediaType": OCI_INDEX, "digest": str(Digest.of(inner)), "size": len(inner)}
    layout = write_layout(tmp_path / "l", *images, index=index_of([entry]), blobs={Digest.of(inner): inner})
    found = await inspect(parse_source(str(layout)), cache=cache, platform=Platform("linux", "s390x"))
    assert (found.digest, found.index_digest) == (images[1].manifest, Digest.of(inner))
    assert found.platforms == (AMD64, Platform("linux", "s390x"))
    with pytest.raises(WrongPlatform):
        await inspect(parse_source(str(layout)), cache=cache, platform=Platform("linux", "arm64"))
