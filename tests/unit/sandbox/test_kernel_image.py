"""Kernels out of their compressed files."""

from __future__ import annotations

import gzip
import lzma
import struct

import lz4.block
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from metalmark.model import StableError
from metalmark.sandbox.kernel_image import decompressed, guest_image

ELF = b"\x7fELF\x02\x01" + bytes(range(256)) * 64


def lz4_legacy(data: bytes) -> bytes:
    parts = [b"\x02\x21\x4c\x18"]
    for start in range(0, len(data), 8192):
        block = lz4.block.compress(data[start : start + 8192], store_size=False)
        parts.append(struct.pack("<I", len(block)) + block)
    return b"".join(parts)


def bzimage(payload: bytes, size: int, *, setup_sects: int = 2) -> bytes:
    image = bytearray((setup_sects + 1) * 512 + 64)
    image[0x1F1] = setup_sects
    image[0x202:0x206] = b"HdrS"
    stream = payload + struct.pack("<I", size)
    struct.pack_into("<II", image, 0x248, 64, len(stream))
    return bytes(image) + stream


COMPRESSORS = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    "zstd": zstandard.ZstdCompressor().compress,
    "lz4": lz4_legacy,
}


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_bzimage_gives_its_elf(kind: str) -> None:
    assert guest_image(bzimage(COMPRESSORS[kind](ELF), len(ELF))) == ELF


def test_arm_image_and_gzipped_one() -> None:
    image = bytes(0x38) + b"ARM\x64" + bytes(100)
    assert guest_image(image) == image
    assert guest_image(gzip.compress(image)) == image


def test_efi_zboot_gives_its_image() -> None:
    image = bytes(0x38) + b"ARM\x64" + bytes(100)
    packed = gzip.compress(image)
    zboot = b"MZ\0\0zimg" + struct.pack("<II", 64, len(packed)) + bytes(48) + packed
    assert guest_image(zboot) == image


def test_elf_stays_as_it_is() -> None:
    assert guest_image(ELF) == ELF


@pytest.mark.parametrize(
    "data",
    [b"", b"#!/bin/sh\n", bzimage(b"\x01\x02\x03\x04" + bytes(50), 10), bzimage(gzip.compress(b"no elf"), 6)],
)
def test_what_is_no_kernel_is_refused(data: bytes) -> None:
    with pytest.raises(StableError):
        guest_image(data)


def test_payload_outside_of_the_file_is_refused() -> None:
    image = bytearray(bzimage(gzip.compress(ELF), len(ELF)))
    struct.pack_into("<I", image, 0x24C, 1 << 30)
    with pytest.raises(StableError, match="outside"):
        guest_image(bytes(image))


@pytest.mark.parametrize("kind", ["gzip", "xz", "zstd", "lz4"])
def test_truncated_stream_is_refused_or_no_kernel(kind: str) -> None:
    packed = COMPRESSORS[kind](ELF)
    with pytest.raises(StableError):
        guest_image(bzimage(packed[:20], len(ELF)))


def test_plain_module_is_left_alone() -> None:
    assert decompressed(ELF) == ELF
    assert decompressed(lzma.compress(ELF)) == ELF


@given(st.binary(max_size=2000))
def test_any_bytes_give_an_image_or_a_typed_refusal(data: bytes) -> None:
    for candidate in (data, bzimage(data, 1), b"\x1f\x8b" + data, b"MZ\0\0zimg" + data):
        try:
            guest_image(candidate)
        except StableError:
            continue
