"""Arbitrary bytes as a layer: an entry is read or a typed error names the layer, and nothing else ever happens.

Run by pytest with few examples, by ``scripts/soak`` with many; with atheris installed, ``python
tests/fuzz/test_fuzz_tar.py`` fuzzes by coverage until it is stopped.
"""

from __future__ import annotations

import os
import sys

from hypothesis import given, settings
from hypothesis import strategies as st

from metalmark.model import LayerRefused
from metalmark.oci import Bounds, EntryKind, OutOfOrder, Tally, TarReader
from metalmark.testing.layers import END, entry, folder, hardlink, header, pax, sparse_map, symlink
from metalmark.testing.trees import merge_in_one_pass, merge_in_two_passes

_EXAMPLES = 10_000 if os.environ.get("METALMARK_SOAK") else 300
_BOUNDS = Bounds(entries=200, content_bytes=1 << 20, hole_bytes=1 << 20, xattr_bytes=1 << 16, owners=50)
_SPARSE = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.name": b"s", b"GNU.sparse.realsize": b"9"}
_SEEDS = [
    entry(b"a", b"x" * 700) + folder(b"d") + symlink(b"l", b"d") + hardlink(b"h", b"a") + END,
    entry(b"n" * 300, b"1") + symlink(b"l" * 200, b"t" * 200) + END,
    pax({b"path": b"p", b"size": b"3", b"uid": b"7", b"SCHILY.xattr.user.a": b"1"}) + header(b"q", size=3) + bytes(512),
    pax(_SPARSE) + entry(b"x", sparse_map([(0, 1), (5, 1)]) + b"ab") + END,
    header(b"s", b"S", size=2, magic=b"ustar  \0", raw={386: b"%011o\0%011o\0" % (1, 2), 483: b"%011o\0" % 9})
    + bytes(512),
    entry(b"d/o") + entry(b"d/.wh..wh..opq") + entry(b".wh.a") + entry(b"d/n") + END,
]


def check(data: bytes, piece_bytes: int = 512) -> None:
    """Read bytes as a layer in whole and in pieces, and merge them on their own and with themselves.

    Raises:
        AssertionError: What came out is not what an entry may be, or depends on how the bytes came in.
    """
    whole = _read([data])
    assert whole == _read([data[start : start + piece_bytes] for start in range(0, len(data), piece_bytes)])
    for layers in ([data], [data, data], [_SEEDS[0], data]):
        try:
            quick = merge_in_one_pass(layers, bounds=_BOUNDS)
        except (LayerRefused, OutOfOrder):
            continue
        try:
            exact = merge_in_two_passes(layers, bounds=_BOUNDS)
        except LayerRefused:
            continue
        assert quick == exact


def _read(pieces: list[bytes]) -> list[object]:
    reader = TarReader(pieces, layer="layer", tally=Tally(_BOUNDS))
    found: list[object] = []
    try:
        for item in reader.entries():
            content = b"".join(bytes(piece) for piece in reader.content())
            assert len(content) == item.stored_bytes
            parts = item.name.split(b"/") if item.name else []
            assert not {b"", b".", b".."}.intersection(parts)
            assert b"\0" not in item.name + item.link
            assert parts or item.kind is EntryKind.DIRECTORY
            assert sum(length for _, length in item.segments or ()) <= item.size_bytes
            found += [item, content]
    except LayerRefused as refused:
        assert refused.layer == "layer"
        found.append(str(refused))
    return found


@st.composite
def _mutated(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(_SEEDS)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data) - 1))
        patch = draw(st.binary(min_size=1, max_size=12))
        data[at : at + len(patch)] = patch
    if draw(st.booleans()):
        del data[draw(st.integers(0, len(data))) :]
    return bytes(_with_sums(data) if draw(st.booleans()) else data)


def _with_sums(data: bytearray) -> bytearray:
    """Make the checksum of every block right, so that a mutation reaches what comes after it."""
    for start in range(0, len(data) - 511, 512):
        block = data[start : start + 512]
        if block[257:262] == b"ustar":
            block[148:156] = b" " * 8
            data[start + 148 : start + 156] = b"%06o\0 " % sum(block)
    return data


@settings(max_examples=_EXAMPLES, deadline=None)
@given(st.one_of(_mutated(), st.binary(max_size=1500)), st.sampled_from([1, 511, 512, 513, 1000]))
def test_any_bytes(data: bytes, piece_bytes: int) -> None:
    check(data, piece_bytes)


def main() -> None:
    """Fuzz by coverage."""
    import atheris  # type: ignore[import-not-found,unused-ignore]  # an optional tool

    atheris.instrument_all()
    atheris.Setup(sys.argv, lambda data: check(bytes(_with_sums(bytearray(data)))))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
