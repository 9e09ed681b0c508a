from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from metalmark.oci.media import Compression
from metalmark.oci.unpack import Unpacker, UnpackLimits, UnpackRefused

SKIPPABLE = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc"


def unpack(blob: bytes, step: int = 1 << 20, limits: UnpackLimits | None = None) -> tuple[bytes, Compression]:
    out = bytearray()
    unpacker = Unpacker(out.extend, limits)
    for offset in range(0, len(blob), step):
        unpacker.feed(blob[offset : offset + step])
    unpacker.finish()
    return bytes(out), unpacker.compression


PACKERS = {
    Compression.NONE: bytes,
    Compression.GZIP: gzip.compress,
    Compression.ZSTD: zstandard.compress,
}


@given(data=st.binary(max_size=5000), kind=st.sampled_from(Compression), step=st.integers(1, 6000))
def test_comes_back_whatever_the_pieces(data: bytes, kind: Compression, step: int) -> None:
    plain = b"tar!" + data  # so that plain data is not taken for packed
    assert unpack(PACKERS[kind](plain), step) == (plain, kind)


@pytest.mark.parametrize("step", [1, 13, 1 << 20])
def test_members_and_frames_follow_each_other(step: int) -> None:
    first, second = b"a" * 300_000, b"b" * 17
    assert unpack(gzip.compress(first) + gzip.compress(second) + bytes(1024), step)[0] == first + second
    frames = SKIPPABLE + zstandard.compress(first) + SKIPPABLE + zstandard.compress(second) + SKIPPABLE
    assert unpack(frames, step)[0] == first + second


def test_an_empty_blob_is_an_empty_plain_layer() -> None:
    assert unpack(b"") == (b"", Compression.NONE)
    assert unpack(b"ab") == (b"ab", Compression.NONE)


@pytest.mark.parametrize("keep", [5, 20, -9, -1])
def test_gzip_that_ends_in_the_middle_is_refused(keep: int) -> None:
    with pytest.raises(UnpackRefused, match="middle"):
        unpack(gzip.compress(bytes(range(256)) * 50)[:keep])


def test_damage_is_refused() -> None:
    blob = bytearray(gzip.compress(bytes(range(256)) * 50))
    blob[-6] ^= 1  # in the checksum
    with pytest.raises(UnpackRefused, match="damaged"):
        unpack(bytes(blob))
    with pytest.raises(UnpackRefused, match="follows"):
        unpack(gzip.compress(b"x") + b"\0\0garbage")
    with pytest.raises(UnpackRefused):
        unpack(gzip.compress(b"x") + b"garbage")
    with pytest.raises(UnpackRefused, match="damaged"):
        unpack(zstandard.compress(b"x") + b"garbage")


@pytest.mark.parametrize("packer", [gzip.compress, zstandard.compress, lambda data: zlib.compress(data, wbits=31)])
def test_a_bomb_is_stopped_within_its_bound(packer: Callable[[bytes], bytes]) -> None:
    bomb = packer(bytes(64 << 20))
    seen = 0
    largest = 0

    def count(piece: bytes) -> None:
        nonlocal seen, largest
        seen += len(piece)
        largest = max(largest, len(piece))

    unpacker = Unpacker(count, UnpackLimits(free_bytes=1 << 20, ratio=200))
    with pytest.raises(UnpackRefused, match="200 times"):
        unpacker.feed(bomb)
    assert largest <= 256 * 1024
    assert seen <= max(1 << 20, 200 * len(bomb)) + largest


def test_the_size_bound_holds_for_plain_streams_too() -> None:
    with pytest.raises(UnpackRefused, match="more than"):
        unpack(b"tar!" + bytes(4096), limits=UnpackLimits(max_bytes=4096))
