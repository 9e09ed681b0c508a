from __future__ import annotations

import gzip

import pytest
import zstandard

from metalmark.oci import Compression
from metalmark.oci.media import check_layer, layer_media_type


@pytest.mark.parametrize(
    ("blob", "expected"),
    [
        (b"", Compression.NONE),
        (b"\x1f", Compression.NONE),
        (b"bin/a\0\0", Compression.NONE),
        (gzip.compress(b"x"), Compression.GZIP),
        (zstandard.compress(b"x"), Compression.ZSTD),
        (b"\x50\x2a\x4d\x18", Compression.ZSTD),
        (b"\x5f\x2a\x4d\x18", Compression.ZSTD),
        (b"\x60\x2a\x4d\x18", Compression.NONE),
        (b"\x28\xb5\x2f", Compression.NONE),
    ],
)
def test_compression_is_told_by_the_first_bytes(blob: bytes, expected: Compression) -> None:
    assert Compression.of(blob[:4]) is expected


@pytest.mark.parametrize("compression", Compression)
def test_what_is_written_here_is_read_here(compression: Compression) -> None:
    check_layer(layer_media_type(compression), "sha256:…")
