"""A header block of a tar stream (POSIX.1-1988 ustar, GNU tar, v7): 512 bytes into numbers and names.

Sources: POSIX.1-2017 "pax", "ustar Interchange Format"; the GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from zlib import adler32

BLOCK = 512
ZEROS = bytes(BLOCK)
_FIELDS = struct.Struct("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12x")
_USTAR = b"ustar\x0000"
_GNU = b"ustar  \x00"
MAX_ID = 2**32 - 2
"""Largest user or group id; the number above means "no change" to chown(2)."""


class BadHeader(ValueError):
    """A header says what cannot be. Internal: the reader names the layer and the entry and raises `LayerRefused`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """The fields of one header block; the name and the link are as the block has them."""

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    type: bytes
    link: bytes
    device: tuple[int, int]


def parse_header(block: bytes) -> Header:
    """Read one header block that is not all zeros.

    Raises:
        BadHeader: The checksum is wrong, or a field is not a number or out of range.
    """
    name, mode, uid, gid, size, mtime, checksum, kind, link, magic, _, _, major, minor, prefix = _FIELDS.unpack(block)
    _check_sum(block, checksum)
    name = _text(name)
    if magic == _USTAR:
        # star leaves its own mark at the end of the block and keeps access times behind a shorter prefix.
        prefix = _text(prefix[:131] if block[508:] == b"tar\x00" else prefix)
        if prefix:
            name = prefix + b"/" + name
    # v7 writers leave what they like where ustar has its device numbers.
    device = (_count(major, "major"), _count(minor, "minor")) if kind in (b"3", b"4") else (0, 0)
    return Header(
        name=name,
        mode=number(mode, "mode") & 0o7777,
        uid=_identity(uid, "uid"),
        gid=_identity(gid, "gid"),
        size=_count(size, "size"),
        mtime=number(mtime, "mtime"),
        type=kind,
        link=_text(link),
        device=device,
    )


def byte_sum(block: bytes | bytearray) -> int:
    """Return the sum of the bytes of a block."""
    # The low half of an Adler-32 is one more than the sum modulo 65521, which 256 bytes stay below: many times faster
    # than sum(), and this runs for every entry that is read or written.
    return (adler32(block[:256]) & 0xFFFF) + (adler32(block[256:]) & 0xFFFF) - 2


def is_gnu(block: bytes) -> bool:
    """Whether a header block is in GNU tar's old format, the only one whose sparse files have a type of their own."""
    return block[257:265] == _GNU


def number(field: bytes, label: str) -> int:
    """Read a numeric field: octal text, or base-256 when its top bit is set (GNU tar, star).

    Raises:
        BadHeader: Neither.
    """
    plain = field.rstrip(b"\0 ")
    if plain.isdigit() and b"8" not in plain and b"9" not in plain:
        return int(plain, 8)
    if field[0] & 0x80:
        # Two's complement over the whole field but for the mark: 0x80 positive, 0xff negative.
        value = int.from_bytes(field, "big", signed=True)
        return value if field[0] == 0xFF else value + (1 << (8 * len(field) - 1))
    text = field.split(b"\0", 1)[0].strip(b" ")
    if not text:
        return 0
    # int() alone takes signs, underscores and prefixes that no tar writer means.
    if not text.isdigit() or b"8" in text or b"9" in text:
        raise BadHeader(f"its field {label} is not a number")
    return int(text, 8)


def _count(field: bytes, label: str) -> int:
    value = number(field, label)
    if not 0 <= value < 2**63:
        raise BadHeader(f"its field {label} is {value}, which is out of range")
    return value


def _identity(field: bytes, label: str) -> int:
    value = number(field, label)
    if not 0 <= value <= MAX_ID:
        raise BadHeader(f"its field {label} is {value}, which is out of range")
    return value


def _text(field: bytes) -> bytes:
    end = field.find(b"\0")
    return field if end < 0 else field[:end]


def _check_sum(block: bytes, field: bytes) -> None:
    expected = number(field, "checksum")
    total = byte_sum(block) - sum(field) + 8 * 0x20
    if total != expected:
        # Some early writers summed signed characters.
        signed = total - 256 * sum(1 for i, byte in enumerate(block) if byte > 127 and not 148 <= i < 156)
        if signed != expected:
            raise BadHeader("its header's checksum is wrong")
