"""What is written for mksquashfs reads back as it was."""

from __future__ import annotations

import io
import os
import tarfile

from hypothesis import given, settings
from hypothesis import strategies as st

from metalmark.oci import Bounds, Entry, EntryKind, Tally, TarReader
from metalmark.oci.tar_writer import TarWriter

_PARTS = st.binary(min_size=1, max_size=200).map(lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"0"))
_NAMES = st.lists(_PARTS.filter(lambda part: part not in (b".", b"..")), min_size=1, max_size=4).map(b"/".join)
_IDS = st.one_of(st.integers(0, 70000), st.integers(2**21 - 2, 2**21 + 2), st.just(2**32 - 2))
_XATTRS = st.dictionaries(st.sampled_from([b"user.a", b"security.capability", b"trusted.b"]), st.binary(max_size=120))


@st.composite
def _entries(draw: st.DrawFn) -> tuple[Entry, bytes]:
    kind = draw(st.sampled_from(EntryKind))
    data = draw(st.binary(max_size=1200)) if kind is EntryKind.FILE else b""
    linked = kind in (EntryKind.SYMLINK, EntryKind.HARDLINK)
    is_device = kind in (EntryKind.CHARACTER, EntryKind.BLOCK)
    made = Entry(
        name=draw(_NAMES),
        kind=kind,
        mode=draw(st.integers(0, 0o7777)),
        uid=draw(_IDS),
        gid=draw(_IDS),
        mtime_s=draw(st.integers(0, 2**32 - 1)),
        size_bytes=len(data),
        stored_bytes=len(data),
        link=draw(_NAMES) if linked else b"",
        device=draw(st.tuples(st.integers(0, 4095), st.integers(0, 2**20 - 1))) if is_device else (0, 0),
        xattrs=tuple(sorted(draw(_XATTRS).items())),
    )
    return made, data


def written(entries: list[tuple[Entry, bytes]]) -> bytes:
    descriptor = os.memfd_create("tar")
    try:
        writer = TarWriter(descriptor)
        for entry, data in entries:
            writer.add(entry, [memoryview(data[:100]), memoryview(data[100:])] if data else ())
        writer.finish()
        size = os.lseek(descriptor, 0, os.SEEK_CUR)
        assert writer.written_bytes == size
        return os.pread(descriptor, size, 0)
    finally:
        os.close(descriptor)


@settings(deadline=None, max_examples=60)
@given(st.lists(_entries(), max_size=5))
def test_reads_back(entries: list[tuple[Entry, bytes]]) -> None:
    reader = TarReader([written(entries)], layer="x", tally=Tally(Bounds()))
    found = [(entry, b"".join(bytes(piece) for piece in reader.content())) for entry in reader.entries()]
    assert found == entries


def test_other_readers_agree() -> None:
    name, link = b"d" * 90 + b"/" + b"f" * 90, b"t" * 150
    entries = [
        (Entry(name=name, kind=EntryKind.FILE, mode=0o640, uid=3_000_000_000, size_bytes=3, stored_bytes=3), b"abc"),
        (Entry(name=b"l", kind=EntryKind.SYMLINK, mode=0o777, link=link, xattrs=((b"user.a", b"1"),)), b""),
        (Entry(name=b"d", kind=EntryKind.DIRECTORY, mode=0o755, mtime_s=-5), b""),
    ]
    with tarfile.open(fileobj=io.BytesIO(written(entries))) as archive:
        file, symlink, folder = archive.getmembers()
        content = archive.extractfile(file)
        assert content is not None
        assert content.read() == b"abc"
    assert (file.name.encode(), file.uid) == (name, 3_000_000_000)
    assert (symlink.linkname.encode(), symlink.pax_headers["SCHILY.xattr.user.a"]) == (link, "1")
    assert folder.isdir()
    assert folder.mtime == 0


def test_holes_become_zeros() -> None:
    sparse = Entry(
        name=b"s", kind=EntryKind.FILE, mode=0o644, size_bytes=600_000, stored_bytes=4, segments=((1, 2), (300_000, 2))
    )
    reader = TarReader([written([(sparse, b"abcd")])], layer="x", tally=Tally(Bounds()))
    (entry,) = [(entry, b"".join(bytes(piece) for piece in reader.content())) for entry in reader.entries()]
    assert entry[1] == b"\0ab" + bytes(300_000 - 3) + b"cd" + bytes(299_998)
