"""Layers written byte by byte, so that a test can write what no tar program would."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from metalmark.model import Digest, ImageConfig, Platform
from metalmark.oci import Compression, LayerBlob, ResolvedImage

BLOCK = 512
END = bytes(2 * BLOCK)
USTAR = b"ustar\x0000"
GNU = b"ustar  \x00"
V7 = bytes(8)
FILE, HARDLINK, SYMLINK, CHARACTER, BLOCKDEV, FOLDER, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"


def padded(data: bytes) -> bytes:
    """Return data filled up to whole blocks."""
    return data + bytes(-len(data) % BLOCK)


def octal(value: int, width: int) -> bytes:
    """Return a number as a tar field has it."""
    return b"%0*o\0" % (width - 1, value)


def base256(value: int, width: int) -> bytes:
    """Return a number as GNU tar writes one that octal has no room for."""
    if value < 0:
        return value.to_bytes(width, "big", signed=True)
    return (value | 1 << (8 * width - 1)).to_bytes(width, "big")


def header(
    name: bytes,
    kind: bytes = FILE,
    *,
    size: int = 0,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime: int = 1000,
    link: bytes = b"",
    magic: bytes = USTAR,
    prefix: bytes = b"",
    device: tuple[int, int] = (0, 0),
    raw: Mapping[int, bytes] | None = None,
    checksum: bytes | None = None,
) -> bytes:
    """Return one header block; ``raw`` overwrites bytes at offsets, before the checksum is made."""
    block = bytearray(BLOCK)
    fields = {
        0: name[:100], 100: octal(mode, 8), 108: octal(uid, 8), 116: octal(gid, 8), 124: octal(size, 12),
        136: octal(mtime, 12), 156: kind, 157: link[:100], 257: magic, 329: octal(device[0], 8),
        337: octal(device[1], 8), 345: prefix[:155],
    }  # fmt: skip
    for offset, data in {**fields, **(raw or {})}.items():
        block[offset : offset + len(data)] = data
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block) if checksum is None else checksum
    return bytes(block)


def entry(name: bytes, data: bytes = b"", kind: bytes = FILE, **fields: object) -> bytes:
    """Return one entry: header and content. A long name or link gets GNU's extra headers."""
    link = fields.get("link", b"")
    assert isinstance(link, bytes)
    extra = b""
    if len(name) > 100:
        extra += extended(b"L", name + b"\0")
    if len(link) > 100:
        extra += extended(b"K", link + b"\0")
    fields.setdefault("size", len(data))
    return extra + header(name, kind, **fields) + padded(data)  # type: ignore[arg-type]  # passed through as given


def folder(name: bytes, **fields: object) -> bytes:
    """Return the entry of a folder."""
    fields.setdefault("mode", 0o755)
    return entry(name, b"", FOLDER, **fields)


def symlink(name: bytes, target: bytes, **fields: object) -> bytes:
    """Return the entry of a symbolic link."""
    return entry(name, b"", SYMLINK, link=target, **{"mode": 0o777, **fields})


def hardlink(name: bytes, target: bytes, **fields: object) -> bytes:
    """Return the entry of a hard link."""
    return entry(name, b"", HARDLINK, link=target, **fields)


def extended(kind: bytes, data: bytes) -> bytes:
    """Return an extended header with its data."""
    return header(b"././@LongLink" if kind in b"LK" else b"PaxHeaders/x", kind, size=len(data)) + padded(data)


def record(key: bytes, value: bytes) -> bytes:
    """Return one PAX record."""
    rest = len(key) + len(value) + 3
    size = rest + len(str(rest))
    size = rest + len(str(size))
    return b"%d %b=%b\n" % (size, key, value)


def pax(records: Mapping[bytes, bytes] | Sequence[tuple[bytes, bytes]], kind: bytes = b"x") -> bytes:
    """Return a PAX header for the entry that follows."""
    pairs = records.items() if isinstance(records, Mapping) else records
    return extended(kind, b"".join(record(key, value) for key, value in pairs))


def sparse_map(segments: Iterable[tuple[int, int]]) -> bytes:
    """Return the map that GNU's sparse format 1.0 keeps in front of the data."""
    pairs = list(segments)
    return padded(b"%d\n" % len(pairs) + b"".join(b"%d\n%d\n" % pair for pair in pairs))


def layer_blob(folder: Path, tar: bytes, *, compression: Compression = Compression.NONE) -> LayerBlob:
    """Write a layer to a file of its own and describe it."""
    if compression is Compression.GZIP:
        data = gzip.compress(tar, 1, mtime=0)
    elif compression is Compression.ZSTD:
        import zstandard  # noqa: PLC0415 - few tests need it

        data = zstandard.compress(tar)
    else:
        data = tar
    digest = Digest.of(data)
    path = folder / digest.hex
    path.write_bytes(data)
    return LayerBlob(
        digest=digest, media_type="application/vnd.oci.image.layer.v1.tar", size_bytes=len(data),
        diff_id=Digest.of(tar), compression=compression, path=path,
    )  # fmt: skip


def image_of(layers: Sequence[LayerBlob]) -> ResolvedImage:
    """Return an image of layers, bottom layer first, whose digest is of what they hold."""
    return ResolvedImage(
        reference="test", digest=Digest.of("".join(layer.digest.hex for layer in layers).encode()),
        platform=Platform("linux", "amd64"), config=ImageConfig(), layers=tuple(layers),
    )  # fmt: skip
