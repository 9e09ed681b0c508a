from __future__ import annotations

from pathlib import Path

from metalmark.model import Digest, ImageConfig, Platform
from metalmark.oci import Compression, LayerBlob, ResolvedImage


def test_the_size_is_that_of_all_layers() -> None:
    layer = LayerBlob(
        digest=Digest.of(b"a"), media_type="x", size_bytes=3, diff_id=Digest.of(b"a"), compression=Compression.NONE,
        path=Path("x"),
    )  # fmt: skip
    image = ResolvedImage(
        reference="r", digest=Digest.of(b"m"), platform=Platform("linux", "amd64"), config=ImageConfig(),
        layers=(layer, layer),
    )  # fmt: skip
    assert image.size_bytes == 6
