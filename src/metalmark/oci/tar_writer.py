"""Writes the merged tree as the tar stream that mksquashfs reads: GNU headers, with PAX ones for what needs them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from metalmark.oci.entry import Entry, EntryKind
from metalmark.oci.tar_header import BLOCK, ZEROS, byte_sum

_TYPES = {
    EntryKind.FILE: b"0", EntryKind.HARDLINK: b"1", EntryKind.SYMLINK: b"2", EntryKind.CHARACTER: b"3",
    EntryKind.BLOCK: b"4", EntryKind.DIRECTORY: b"5", EntryKind.FIFO: b"6",
}  # fmt: skip
_FLUSH_BYTES = 1024 * 1024
_FLUSH_PARTS = 1000
"""Below IOV_MAX, the most pieces that one writev(2) takes."""
_HOLE = memoryview(bytes(256 * 1024))
_MAX_TIME_S = 2**32 - 1
"""Squashfs keeps times as unsigned 32-bit seconds."""


class TarWriter:
    """Writes a tar stream to a descriptor, in large pieces and without copying content.

    Args:
        descriptor: Where to; a blocking one.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._parts: list[bytes | memoryview] = []
        self._size = 0
        self.written_bytes = 0

    def add(self, entry: Entry, content: Iterable[memoryview] = ()) -> None:
        """Write one entry; ``content`` gives exactly its stored bytes.

        Raises:
            OSError: The reader of the stream has gone away.
        """
        records = _xattr_records(entry)
        if records:
            self._put(_extended(b"x", records))
        size = entry.size_bytes
        self._put(_header(entry, size))
        if size:
            for piece in content if entry.segments is None else _with_holes(entry.segments, size, content):
                self._put(piece)
            if padding := -size % BLOCK:
                self._put(ZEROS[:padding])

    def finish(self) -> None:
        """Write the end of the stream and whatever is still held back.

        Raises:
            OSError: The reader of the stream has gone away.
        """
        self._put(ZEROS * 2)
        self._flush()

    def _put(self, data: bytes | memoryview) -> None:
        self._parts.append(data)
        self._size += len(data)
        if self._size >= _FLUSH_BYTES or len(self._parts) >= _FLUSH_PARTS:
            self._flush()

    def _flush(self) -> None:
        parts, self._parts = self._parts, []
        self.written_bytes += self._size
        left, self._size = self._size, 0
        while True:
            written = os.writev(self._descriptor, parts)
            left -= written
            if not left:
                return
            parts = _after(parts, written)


def _with_holes(segments: Iterable[tuple[int, int]], size: int, content: Iterable[memoryview]) -> Iterator[memoryview]:
    """Yield the whole of a sparse file. mksquashfs finds holes by itself, and fails on most maps of them (4.5.1)."""
    pieces = iter(content)
    piece = memoryview(b"")
    position = 0
    for offset, length in segments:
        yield from _zeros(offset - position)
        position = offset + length
        left = length
        while left:
            piece = piece or next(pieces)
            yield piece[:left]
            left, piece = left - len(piece[:left]), piece[left:]
    yield from _zeros(size - position)


def _zeros(size: int) -> Iterator[memoryview]:
    while size:
        yield _HOLE[:size]
        size -= len(_HOLE[:size])


def _after(parts: list[bytes | memoryview], written: int) -> list[bytes | memoryview]:
    for index, part in enumerate(parts):
        if written < len(part):
            return [memoryview(part)[written:], *parts[index + 1 :]]
        written -= len(part)
    return []


def _octal(value: int, width: int) -> bytes:
    """Return a number as octal text and a NUL, or as base-256 where that is too short."""
    if value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    return (value | 1 << (8 * width - 1)).to_bytes(width, "big")


def _header(entry: Entry, size: int) -> bytes:
    long = b""
    name, link = entry.name, entry.link
    if entry.kind is EntryKind.DIRECTORY:
        name += b"/"
    if len(name) > 100:
        long = _extended(b"L", name + b"\0")
    if len(link) > 100:
        long += _extended(b"K", link + b"\0")
    mtime = min(max(entry.mtime_s, 0), _MAX_TIME_S)
    block = bytearray(BLOCK)
    head, tail = name[:100], link[:100]
    block[: len(head)] = head
    block[100:148] = b"%07o\0%b%b%b%b" % (
        entry.mode,
        _octal(entry.uid, 8),
        _octal(entry.gid, 8),
        _octal(size, 12),
        _octal(mtime, 12),
    )
    block[148:157] = b"        " + _TYPES[entry.kind]
    block[157 : 157 + len(tail)] = tail
    block[257:265] = b"ustar  \0"
    if entry.device != (0, 0):
        block[329:345] = b"%07o\0%07o\0" % entry.device
    block[148:155] = b"%06o\0" % byte_sum(block)
    return long + bytes(block)


def _extended(kind: bytes, data: bytes) -> bytes:
    entry = Entry(name=b"././@LongLink" if kind != b"x" else b"././@PaxHeader", kind=EntryKind.FILE, mode=0o644)
    block = bytearray(_header(entry, len(data)))
    block[156:157] = kind
    block[148:156] = b"        "
    block[148:155] = b"%06o\0" % byte_sum(block)
    return b"".join((block, data, bytes(-len(data) % BLOCK)))


def _xattr_records(entry: Entry) -> bytes:
    return b"".join(_record(b"SCHILY.xattr." + name, value) for name, value in entry.xattrs)


def _record(key: bytes, value: bytes) -> bytes:
    rest = len(key) + len(value) + 3
    size = rest + len(b"%d" % rest)
    # Its own length is part of a record, so a digit more may make it another digit longer.
    size = rest + len(b"%d" % size)
    return b"%d %b=%b\n" % (size, key, value)
