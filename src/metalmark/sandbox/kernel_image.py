r"""The kernel image itself: out of the compressed file that a distribution ships, into the one that a VMM loads.

x86-64: a bzImage holds the compressed ELF ``vmlinux`` at ``(setup_sects + 1) * 512 + payload_offset``; the four bytes
at its end are the uncompressed size and no part of the stream (``Documentation/arch/x86/boot.rst``, protocol 2.08).
An uncompressed kernel starts 0.1 to 3 s sooner under emulation, and Firecracker takes nothing else.
aarch64: an ``Image`` (magic ``ARM\x64`` at 0x38), as it is or gzipped.
"""

from __future__ import annotations

import gzip
import lzma
import struct
import zlib
from typing import Final

import lz4.block  # type: ignore[import-untyped]  # lz4 ships neither stubs nor a py.typed marker
import zstandard

from metalmark.model import StableError

_MOST_BYTES: Final = 512 * 1024 * 1024
_LZ4_LEGACY: Final = b"\x02\x21\x4c\x18"
_LZ4_BLOCK_BYTES: Final = 8 * 1024 * 1024
_REFUSED = "this is not a Linux kernel that can be started"


def guest_image(vmlinuz: bytes) -> bytes:
    """Return the image to boot: ELF ``vmlinux`` for x86-64, ``Image`` for aarch64.

    Raises:
        StableError: The file is no kernel, or is compressed in a way unknown here.
    """
    if _is_image(vmlinuz):
        return vmlinuz
    try:
        if vmlinuz[:2] == b"\x1f\x8b":
            image = _unpacked(vmlinuz)
        elif vmlinuz[4:8] == b"zimg":
            image = _efi_zboot(vmlinuz)
        elif vmlinuz[0x202:0x206] == b"HdrS":
            image = _bzimage(vmlinuz)
        else:
            raise StableError("a kernel file that is neither bzImage nor ELF nor Image", why=_REFUSED)
    except struct.error as error:
        raise StableError("a kernel file that is cut off", why=str(error)) from error
    if not _is_image(image):
        raise StableError("a kernel file whose payload is neither ELF nor Image", why=_REFUSED)
    return image


def _is_image(data: bytes) -> bool:
    return data[:4] == b"\x7fELF" or data[0x38:0x3C] == b"ARM\x64"


def _bzimage(vmlinuz: bytes) -> bytes:
    offset, length = struct.unpack_from("<II", vmlinuz, 0x248)
    start = ((vmlinuz[0x1F1] or 4) + 1) * 512 + offset
    if length < 8 or start + length > len(vmlinuz):
        raise StableError("a bzImage whose payload lies outside the file", why=_REFUSED)
    return _unpacked(vmlinuz[start : start + length - 4])


def decompressed(data: bytes) -> bytes:
    """Return the content of a file compressed with gzip, xz, zstd or lz4 (legacy); other files as they are.

    Raises:
        StableError: The stream is broken or over 512 MiB.
    """
    known = (b"\x1f\x8b", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", _LZ4_LEGACY)
    return _unpacked(data) if data.startswith(known) else data


def _efi_zboot(vmlinuz: bytes) -> bytes:
    """An EFI zboot image (aarch64, Linux 6.1 on): payload offset and size at 8 and 12."""
    offset, size = struct.unpack_from("<II", vmlinuz, 8)
    return _unpacked(vmlinuz[offset : offset + size])


def _unpacked(data: bytes) -> bytes:
    try:
        if data[:2] == b"\x1f\x8b":
            return gzip.decompress(data)
        if data[:6] == b"\xfd7zXZ\0" or data[:3] == b"\x5d\0\0":
            return lzma.LZMADecompressor().decompress(data, _MOST_BYTES)
        if data[:4] == b"\x28\xb5\x2f\xfd":
            return zstandard.ZstdDecompressor().decompressobj().decompress(data)
        if data[:4] == _LZ4_LEGACY:
            return _lz4_legacy(data)
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError, lz4.block.LZ4BlockError) as error:
        raise StableError("a kernel file whose compressed part is broken", why=str(error)) from error
    raise StableError(
        f"a kernel compressed in an unknown way (starts with {data[:4].hex()})", why="known: gzip, xz, lzma, zstd, lz4"
    )


def _lz4_legacy(data: bytes) -> bytes:
    """Decode an LZ4 legacy stream: blocks of at most 8 MiB, each after its compressed length."""
    parts: list[bytes] = []
    offset = 4
    while offset + 4 <= len(data):
        (length,) = struct.unpack_from("<I", data, offset)
        offset += 4
        if length == int.from_bytes(_LZ4_LEGACY, "little"):
            continue
        if length == 0 or offset + length > len(data):
            break
        parts.append(lz4.block.decompress(data[offset : offset + length], uncompressed_size=_LZ4_BLOCK_BYTES))
        offset += length
    return b"".join(parts)
