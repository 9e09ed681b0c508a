"""A strict reader of tar streams: v7, ustar, GNU and PAX, sparse files in all four formats, names as bytes.

It reads each byte once, keeps no more than a header in memory and hands content out without copying it. What readers
of layers disagree about, or what can only be an accident or an attack, is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from metalmark.model import LayerRefused
from metalmark.oci.bounds import HEADER_BYTES, NAME_BYTES, PATH_BYTES, SEGMENTS, Tally
from metalmark.oci.entry import Entry, EntryKind, shown
from metalmark.oci.tar_header import BLOCK, ZEROS, BadHeader, Header, is_gnu, number, parse_header
from metalmark.oci.tar_records import Records, check_global, count, map_of_records, segments_of, take_records

_KINDS = {
    b"0": EntryKind.FILE, b"\0": EntryKind.FILE, b"7": EntryKind.FILE, b"S": EntryKind.FILE,
    b"1": EntryKind.HARDLINK, b"2": EntryKind.SYMLINK, b"3": EntryKind.CHARACTER, b"4": EntryKind.BLOCK,
    b"5": EntryKind.DIRECTORY, b"6": EntryKind.FIFO,
}  # fmt: skip
_EXTENDED = (b"x", b"X", b"L", b"K")
_MAX_EXTENDED = 8
"""Most extended headers before one entry; writers need three."""
_MAX_MAJOR, _MAX_MINOR = 4095, 1048575


class TarReader:
    """Reads the entries of one layer from the pieces of its tar stream.

    Args:
        pieces: The stream, in pieces of any size.
        layer: Name of the layer, for errors.
        tally: Counts what is read, against the bounds of the whole image.
    """

    def __init__(self, pieces: Iterable[bytes], *, layer: str, tally: Tally) -> None:
        self._pieces = iter(pieces)
        self._piece = b""
        self._position = 0
        self._left = 0
        """Content of the current entry that has not been handed out."""
        self._padding = 0
        self._layer = layer
        self._tally = tally
        self._name = self._previous = b""

    def entries(self) -> Iterator[Entry]:
        """Yield the entries in order; content that was not asked for is skipped.

        Raises:
            LayerRefused: The stream is malformed, cut off or over a bound.
        """
        while True:
            self._skip(self._left + self._padding)
            self._left = self._padding = 0
            self._previous, self._name = self._name, b""
            try:
                entry = self._next()
            except BadHeader as error:
                raise self._refused(str(error)) from error
            if entry is None:
                return
            self._tally.count(self._layer, entry)
            yield entry

    def content(self) -> Iterator[memoryview]:
        """Yield the stored content of the entry that came last, in pieces, once.

        Raises:
            LayerRefused: The stream is cut off.
        """
        while self._left:
            if self._position == len(self._piece):
                self._pull()
            piece = memoryview(self._piece)[self._position : self._position + self._left]
            self._position += len(piece)
            self._left -= len(piece)
            yield piece

    def _pull(self) -> None:
        for piece in self._pieces:
            if piece:
                self._piece, self._position = piece, 0
                return
        raise self._refused("the tar stream ends in the middle")

    def _refused(self, why: str) -> LayerRefused:
        if self._name or not self._previous:
            return LayerRefused(self._layer, shown(self._name), why)
        return LayerRefused(self._layer, shown(self._previous), f"in the header that follows it: {why}")

    def _skip(self, size: int) -> None:
        while size:
            if self._position == len(self._piece):
                self._pull()
            step = min(size, len(self._piece) - self._position)
            self._position += step
            size -= step

    def _take(self, size: int) -> bytes:
        start, end = self._position, self._position + size
        if end <= len(self._piece):
            self._position = end
            return self._piece[start:end]
        parts = bytearray(self._piece[start:])
        self._position = len(self._piece)
        while len(parts) < size:
            self._pull()
            step = min(size - len(parts), len(self._piece))
            parts += self._piece[:step]
            self._position = step
        return bytes(parts)

    def _at_end(self) -> bool:
        # A stream may end at an entry's border without the two blocks of zeros: Docker and GNU tar take that.
        if self._position < len(self._piece):
            return False
        for piece in self._pieces:
            if piece:
                self._piece, self._position = piece, 0
                return False
        return True

    def _next(self) -> Entry | None:
        records: Records | None = None
        for _ in range(_MAX_EXTENDED):
            block = ZEROS if self._at_end() else self._take(BLOCK)
            if block == ZEROS:
                if records is not None:
                    raise BadHeader("the stream ends after an extended header")
                return None
            header = parse_header(block)
            self._name = header.name if records is None or records.path is None else records.path
            if header.type == b"g":
                check_global(self._extended(header))
            elif header.type in _EXTENDED:
                records = records or Records()
                self._take_extended(header, records)
            else:
                return self._entry(block, header, records)
        raise BadHeader(f"more than {_MAX_EXTENDED} extended headers precede it")

    def _extended(self, header: Header) -> bytes:
        if header.size > HEADER_BYTES:
            raise BadHeader(f"its extended header of {header.size} bytes is larger than {HEADER_BYTES}")
        data = self._take(header.size)
        self._skip(-header.size % BLOCK)
        return data

    def _take_extended(self, header: Header, records: Records) -> None:
        data = self._extended(header)
        if header.type == b"L":
            records.path = data.split(b"\0", 1)[0]
        elif header.type == b"K":
            records.linkpath = data.split(b"\0", 1)[0]
        else:
            take_records(data, records)

    def _entry(self, block: bytes, header: Header, records: Records | None) -> Entry:
        kind = _KINDS.get(header.type)
        if kind is None:
            raise BadHeader(f"its type {shown(header.type)!r} is none that layers have")
        if records is not None:
            return self._extended_entry(block, header, records, kind)
        if header.type == b"S":
            return self._sparse_entry(block, header, Records())
        return self._plain_entry(header, kind)

    def _plain_entry(self, header: Header, kind: EntryKind) -> Entry:
        name = clean_name(header.name)
        link = header.link
        size = 0
        if kind is EntryKind.FILE:
            if header.name[-1:] == b"/":
                # v7 has no type for folders.
                kind = EntryKind.DIRECTORY
            else:
                size = header.size
        if not name and kind is not EntryKind.DIRECTORY:
            raise BadHeader(f"a {kind.value} takes the place of the root")
        if kind is EntryKind.HARDLINK or kind is EntryKind.SYMLINK:
            link = _checked_link(kind, link)
        elif link:
            link = b""
        if header.device[0] > _MAX_MAJOR or header.device[1] > _MAX_MINOR:
            raise BadHeader(f"its device number {header.device[0]}:{header.device[1]} is out of range")
        self._left = size
        self._padding = -size % BLOCK
        return Entry(
            name=name,
            kind=kind,
            mode=header.mode,
            uid=header.uid,
            gid=header.gid,
            mtime_s=header.mtime,
            size_bytes=size,
            stored_bytes=size,
            link=link,
            device=header.device,
        )

    def _extended_entry(self, block: bytes, header: Header, records: Records, kind: EntryKind) -> Entry:
        merged = Header(
            name=header.name if records.path is None else records.path,
            mode=header.mode,
            uid=header.uid if records.uid is None else records.uid,
            gid=header.gid if records.gid is None else records.gid,
            size=header.size if records.size is None else records.size,
            mtime=header.mtime if records.mtime is None else records.mtime,
            type=header.type,
            link=header.link if records.linkpath is None else records.linkpath,
            device=header.device,
        )
        self._name = merged.name
        if kind is EntryKind.FILE and (header.type == b"S" or records.sparse or records.segments):
            return self._sparse_entry(block, merged, records)
        entry = self._plain_entry(merged, kind)
        return _with_xattrs(entry, records) if records.xattrs else entry

    def _sparse_entry(self, block: bytes, header: Header, records: Records) -> Entry:
        sparse = records.sparse
        stored = header.size
        if header.type == b"S":
            size, numbers = self._old_map(block)
        else:
            self._name = sparse.get(b"name", header.name)
            if b"\0" in self._name:
                raise BadHeader("the name of a sparse file holds a NUL")
            size = count(sparse.get(b"realsize", sparse.get(b"size", b"?")), "GNU.sparse.realsize")
            version = sparse.get(b"major", b"0"), sparse.get(b"minor", b"0")
            if version == (b"1", b"0"):
                numbers, taken = self._stored_map(header.size)
                stored -= taken
            elif version[0] == b"0" and (found := map_of_records(sparse, records.segments)) is not None:
                numbers = found
            else:
                raise BadHeader("it is a sparse file in an unknown format")
        segments = segments_of(numbers, size, stored)
        entry = self._plain_entry(
            Header(
                name=self._name, mode=header.mode, uid=header.uid, gid=header.gid, size=stored, mtime=header.mtime,
                type=b"0", link=b"", device=(0, 0),
            ),
            EntryKind.FILE,
        )  # fmt: skip
        if entry.kind is not EntryKind.FILE:
            raise BadHeader("a sparse file has the name of a folder")
        return _with_xattrs(entry, records, size=size, segments=segments)

    def _old_map(self, block: bytes) -> tuple[int, list[int]]:
        if not is_gnu(block):
            raise BadHeader("it is a sparse file of GNU tar in a header that is not GNU tar's")
        size = _positive(block[483:495])
        numbers = _map_fields(block[386:482])
        extended = block[482] != 0
        while extended:
            if len(numbers) > 2 * SEGMENTS:
                raise BadHeader("the map of a sparse file is too long")
            more = self._take(BLOCK)
            numbers += _map_fields(more[:504])
            extended = more[504] != 0
        return size, numbers

    def _stored_map(self, stored: int) -> tuple[list[int], int]:
        """Read the map that format 1.0 keeps in front of the data; return it and the bytes that it takes."""
        numbers: list[int] = []
        wanted = 1
        text = b""
        taken = 0
        while len(numbers) < wanted:
            line, feed, rest = text.partition(b"\n")
            if feed:
                numbers.append(count(line, "GNU.sparse.map"))
                text = rest
                if len(numbers) == 1:
                    wanted = 1 + 2 * numbers[0]
                if wanted > 1 + 2 * SEGMENTS:
                    raise BadHeader("the map of a sparse file is too long")
                continue
            if len(text) > BLOCK or taken + BLOCK > stored:
                raise BadHeader("the map of a sparse file is cut off")
            text += self._take(BLOCK)
            taken += BLOCK
        return numbers[1:], taken


def clean_name(raw: bytes) -> bytes:
    """Return a name in the form of `Entry.name`; empty is the root.

    Raises:
        BadHeader: It is empty or too long, or leads upwards.
    """
    if not raw:
        raise BadHeader("it has no name")
    if len(raw) > PATH_BYTES:
        raise BadHeader(f"its name is longer than {PATH_BYTES} bytes")
    parts = raw.split(b"/")
    if b"" in parts or b"." in parts:
        parts = [part for part in parts if part not in (b"", b".")]
    if b".." in parts:
        raise BadHeader("its name leads upwards")
    if len(raw) > NAME_BYTES and any(len(part) > NAME_BYTES for part in parts):
        raise BadHeader(f"its name has a part longer than {NAME_BYTES} bytes")
    return b"/".join(parts)


def _checked_link(kind: EntryKind, link: bytes) -> bytes:
    if not link:
        raise BadHeader(f"it is a {kind.value} to nothing")
    if kind is EntryKind.HARDLINK:
        target = clean_name(link)
        if not target:
            raise BadHeader("it is a hard link to the root")
        return target
    if len(link) > PATH_BYTES:
        raise BadHeader(f"its link is longer than {PATH_BYTES} bytes")
    return link


def _with_xattrs(
    entry: Entry, records: Records, *, size: int | None = None, segments: tuple[tuple[int, int], ...] | None = None
) -> Entry:
    return Entry(
        name=entry.name,
        kind=entry.kind,
        mode=entry.mode,
        uid=entry.uid,
        gid=entry.gid,
        mtime_s=entry.mtime_s,
        size_bytes=entry.size_bytes if size is None else size,
        stored_bytes=entry.stored_bytes,
        link=entry.link,
        device=entry.device,
        xattrs=tuple(sorted(records.xattrs.items())),
        segments=segments,
    )


def _map_fields(data: bytes) -> list[int]:
    numbers = []
    for start in range(0, len(data), 24):
        offset, length = data[start : start + 12], data[start + 12 : start + 24]
        if offset[:1] == b"\0" and length[:1] == b"\0":
            break
        numbers += [_positive(offset), _positive(length)]
    return numbers


def _positive(field: bytes) -> int:
    value = number(field, "of the sparse map")
    if not 0 <= value < 2**63:
        raise BadHeader("a number of the map of a sparse file is out of range")
    return value
