"""PAX records: extended headers of a tar stream, and the maps of sparse files.

Sources: POSIX.1-2017 "pax Extended Header"; the GNU tar manual, "Storing Sparse Files"; libarchive and star for the
two spellings of extended attributes.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from metalmark.oci.bounds import SEGMENTS, XATTR_BYTES
from metalmark.oci.tar_header import MAX_ID, BadHeader

_LENGTH = re.compile(rb"([0-9]{1,9}) ")
_DECIMAL = re.compile(rb"-?[0-9]{1,18}(?:\.[0-9]*)?")
_COUNT = re.compile(rb"[0-9]{1,18}")
_CHARSETS = (b"BINARY", b"ISO-IR 10646 2000 UTF-8")
_SCHILY = b"SCHILY.xattr."
_LIBARCHIVE = b"LIBARCHIVE.xattr."
_KERNEL_OWN = (b"trusted.overlay.", b"user.overlay.")
"""Attributes that overlayfs steers itself with; an image has no business to."""
_KEPT = (b"user.", b"trusted.", b"security.")
"""The only kinds that squashfs has; access control lists are not among them."""
_GLOBAL_HARMLESS = (b"comment", b"hdrcharset")


@dataclass(kw_only=True, slots=True)
class Records:
    """What extended headers said about the next entry. None: nothing."""

    path: bytes | None = None
    linkpath: bytes | None = None
    size: int | None = None
    uid: int | None = None
    gid: int | None = None
    mtime: int | None = None
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    sparse: dict[bytes, bytes] = field(default_factory=dict)
    """Records that start with ``GNU.sparse.``, without that."""
    segments: list[int] = field(default_factory=list)
    """Offsets and lengths in turn, from GNU's format 0.0, which repeats its records."""


def parse_records(data: bytes) -> Iterable[tuple[bytes, bytes]]:
    """Split an extended header into its keys and values, in order.

    Raises:
        BadHeader: A record is not ``length key=value`` and a line feed, exactly as long as it says.
    """
    position = 0
    while position < len(data):
        match = _LENGTH.match(data, position)
        if match is None:
            if not data[position:].strip(b"\0"):
                return
            raise BadHeader("an extended header holds a record without a length")
        end = position + int(match[1])
        key, equals, value = data[match.end() : end].partition(b"=")
        if end > len(data) or end <= match.end() or not equals or not key or value[-1:] != b"\n":
            raise BadHeader("an extended header holds a malformed record")
        yield key, value[:-1]
        position = end


def take_records(data: bytes, into: Records) -> None:
    """Read an extended header for one entry.

    Raises:
        BadHeader: It is malformed, or a value cannot be.
    """
    libarchive: dict[bytes, bytes] = {}
    for key, value in parse_records(data):
        if key.startswith(_SCHILY):
            _take_xattr(into.xattrs, key[len(_SCHILY) :], value)
        elif key.startswith(_LIBARCHIVE):
            _take_xattr(libarchive, unquote_to_bytes(key[len(_LIBARCHIVE) :]), _base64(value))
        elif key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            _take_segment(into.segments, key, value)
        elif key.startswith(b"GNU.sparse."):
            into.sparse[key[len(b"GNU.sparse.") :]] = value
        else:
            _take_field(into, key, value)
    for name, value in libarchive.items():
        into.xattrs.setdefault(name, value)


def check_global(data: bytes) -> None:
    """Read an extended header that is meant for all entries that follow.

    Raises:
        BadHeader: It would change them: the programs that read layers disagree on whether it does.
    """
    for key, _ in parse_records(data):
        if key not in _GLOBAL_HARMLESS and (key.split(b".")[0] in _MEANT or key in _FIELDS):
            raise BadHeader(f"a global extended header sets {key.decode('ascii', 'replace')} for all entries")


_MEANT = (b"GNU", b"SCHILY", b"LIBARCHIVE")
_FIELDS = (b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime")


def _take_field(into: Records, key: bytes, value: bytes) -> None:
    if key == b"hdrcharset":
        if value not in _CHARSETS:
            raise BadHeader("an extended header is in an unknown character set")
    elif key not in _FIELDS or not value:
        # An empty value takes back what an earlier header said; there is none that could have.
        return
    elif key == b"path":
        into.path = _name(value)
    elif key == b"linkpath":
        into.linkpath = _name(value)
    elif key == b"size":
        into.size = count(value, "size")
    elif key == b"mtime":
        into.mtime = _seconds(value)
    else:
        number = count(value, key.decode())
        if number > MAX_ID:
            raise BadHeader(f"its record {key.decode()} is {number}, which is out of range")
        if key == b"uid":
            into.uid = number
        else:
            into.gid = number


def _name(value: bytes) -> bytes:
    if b"\0" in value:
        raise BadHeader("a name in an extended header holds a NUL")
    return value


def count(value: bytes, label: str) -> int:
    """Read a decimal number that is not negative.

    Raises:
        BadHeader: It is not one, or is larger than any file.
    """
    if not _COUNT.fullmatch(value):
        raise BadHeader(f"its record {label} is not a number in range")
    return int(value)


def _seconds(value: bytes) -> int:
    if not _DECIMAL.fullmatch(value):
        raise BadHeader("its record mtime is not a time")
    whole, _, fraction = value.partition(b".")
    seconds = int(whole)
    return seconds - 1 if value[:1] == b"-" and fraction.strip(b"0") else seconds


def _base64(value: bytes) -> bytes:
    try:
        return base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
    except binascii.Error:
        raise BadHeader("an extended attribute is not base64") from None


def _take_xattr(into: dict[bytes, bytes], name: bytes, value: bytes) -> None:
    if not name or len(name) > 255 or b"\0" in name or b"=" in name:
        raise BadHeader("an extended attribute has no name, or one that cannot be")
    if len(value) > XATTR_BYTES:
        raise BadHeader(f"an extended attribute is larger than {XATTR_BYTES} bytes")
    if name.startswith(_KEPT) and not name.startswith(_KERNEL_OWN):
        into[name] = value


def _take_segment(segments: list[int], key: bytes, value: bytes) -> None:
    is_offset = key.endswith(b"offset")
    if is_offset != (len(segments) % 2 == 0):
        raise BadHeader("the map of a sparse file is not in order")
    segments.append(count(value, "GNU.sparse"))


def segments_of(numbers: Iterable[int], size: int, stored: int) -> tuple[tuple[int, int], ...]:
    """Check the map of a sparse file and return it without what is empty, and with what touches joined.

    Args:
        numbers: Offsets and lengths in turn.
        size: Of the file, holes included.
        stored: Bytes of data that the stream holds.

    Raises:
        BadHeader: It is out of order, overlaps, ends past the file or is not what is stored.
    """
    flat = list(numbers)
    if len(flat) % 2 or len(flat) > 2 * SEGMENTS:
        raise BadHeader("the map of a sparse file is odd or too long")
    joined: list[tuple[int, int]] = []
    total = end = 0
    for offset, length in zip(flat[::2], flat[1::2], strict=True):
        if offset < end or offset + length > size:
            raise BadHeader("the map of a sparse file overlaps or ends past the file")
        if length:
            if joined and offset == end:
                joined[-1] = (joined[-1][0], joined[-1][1] + length)
            else:
                joined.append((offset, length))
        end = offset + length
        total += length
    if total != stored:
        raise BadHeader(f"the map of a sparse file counts {total} bytes, but {stored} are stored")
    return tuple(joined)


def map_of_records(sparse: Mapping[bytes, bytes], segments: list[int]) -> list[int] | None:
    """Return the map that formats 0.0 and 0.1 keep in records, or None when there is none.

    Raises:
        BadHeader: It is malformed.
    """
    if b"map" in sparse:
        parts = sparse[b"map"].split(b",") if sparse[b"map"] else []
        return [count(part, "GNU.sparse.map") for part in parts]
    return segments if segments or b"numblocks" in sparse else None
