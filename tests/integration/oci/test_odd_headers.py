"""Layers whose tar streams are odd, broken or hostile: each is read right, or refused with the entry named."""

# ruff: noqa: E501 - one case a line: the corpus is to be read as a table

from __future__ import annotations

import gzip
from typing import Any

import pytest

from metalmark.model import MIB
from metalmark.oci import Bounds, Compression, EntryKind
from metalmark.testing.layers import (
    BLOCKDEV,
    CHARACTER,
    END,
    FIFO,
    FILE,
    FOLDER,
    GNU,
    HARDLINK,
    V7,
    base256,
    entry,
    extended,
    folder,
    hardlink,
    header,
    padded,
    pax,
    record,
    sparse_map,
    symlink,
)

A = entry(b"a", b"x")
ONE = {b"a": {"content": b"x"}}
LONG = b"/".join([b"d" * 60] * 5)
SPARSE = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.name": b"s"}
_FOLDERS_OF_LONG: dict[bytes, dict[str, Any]] = {
    b"/".join([b"d" * 60] * n): {"kind": EntryKind.DIRECTORY} for n in range(1, 5)
}


def read(data: bytes, tree: dict[bytes, dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"layers": [data], "tree": tree, **more}


def refuse(data: bytes, why: str, name: str | None = None, **more: Any) -> dict[str, Any]:
    return {"layers": [data], "refused": why, "entry": name, **more}


def old_sparse(size: int, segments: list[tuple[int, int]], stored: int, *, more: bool = False) -> bytes:
    raw = {386 + 24 * i: b"%011o\0%011o\0" % pair for i, pair in enumerate(segments)}
    return header(
        b"s", b"S", size=stored, magic=GNU, raw={**raw, 482: b"\1" if more else b"\0", 483: b"%011o\0" % size}
    )


def stored_sparse(size: int, segments: list[tuple[int, int]], data: bytes, **records: bytes) -> bytes:
    body = sparse_map(segments) + data
    return pax({**SPARSE, b"GNU.sparse.realsize": b"%d" % size}) + entry(b"GNUSparseFile.1/s", body)


CASES: dict[str, dict[str, Any]] = {
    # Ends of streams
    "empty stream": read(b"", {}),
    "only the end": read(END, {}),
    "no end at all": read(A, ONE),
    "one block of zeros": read(A + bytes(512), ONE),
    "something after the end": read(A + END + entry(b"b"), ONE),
    "garbage after the end": read(A + END + b"garbage", ONE),
    "long padding": read(A + bytes(65536), ONE),
    "cut in a header": refuse(A + header(b"b")[:300], "follows it: the tar stream ends in the middle", "a"),
    "cut in content": refuse(entry(b"b", b"x" * 600)[:900], "ends in the middle", "b"),
    "cut in padding": refuse(entry(b"b", b"x")[:600], "ends in the middle", "b"),
    "cut in an extended header": refuse(pax({b"path": b"b"})[:600], "ends in the middle"),
    "ends after an extended header": refuse(pax({b"path": b"b"}) + END, "after an extended header"),
    "content larger than the stream": refuse(header(b"b", size=2**33 - 1), "ends in the middle", "b"),
    # Header fields
    "wrong checksum": refuse(header(b"b", checksum=b"000001\0 ") + END, "checksum", None),
    "checksum not a number": refuse(header(b"b", checksum=b"zzzzzz\0 ") + END, "checksum"),
    "checksum with spaces": read(header(b"b", checksum=b"%6o\0 " % (sum(header(b"b")) - sum(header(b"b")[148:156]) + 256)), {b"b": {}}),
    "signed checksum": read(header(b"\xff", checksum=b"%06o\0 " % (sum(header(b"\xff")) - sum(header(b"\xff")[148:156]) + 256 - 256)), {b"\xff": {}}),
    "random block": refuse(bytes(range(256)) * 2, "checksum"),
    "size not a number": refuse(header(b"b", raw={124: b"12x45678901\0"}), "size"),
    "size with eights": refuse(header(b"b", raw={124: b"00000000008\0"}), "size"),
    "size with a sign": refuse(header(b"b", raw={124: b"-0000000001\0"}), "size"),
    "size with underscores": refuse(header(b"b", raw={124: b"0000_000001\0"}), "size"),
    "size negative in base-256": refuse(header(b"b", raw={124: base256(-1, 12)}), "size"),
    "size of 2^90": refuse(header(b"b", raw={124: base256(2**90, 12)}), "size"),
    "size in base-256": read(header(b"b", raw={124: base256(1, 12)}) + padded(b"x") + END, {b"b": {"content": b"x"}}),
    "size without terminator": read(header(b"b", raw={124: b"000000000001"}) + padded(b"x"), {b"b": {"content": b"x"}}),
    "size left blank": read(header(b"b", raw={124: b" " * 12}) + END, {b"b": {"content": b""}}),
    "numbers with leading spaces": read(header(b"b", raw={108: b"     5 \0"}) + END, {b"b": {"uid": 5}}),
    "owner in base-256": read(header(b"b", raw={108: base256(3_000_000_000, 8)}) + END, {b"b": {"uid": 3_000_000_000}}),
    "owner of minus one": refuse(header(b"b", raw={108: base256(2**32 - 1, 8)}), "uid"),
    "owner negative": refuse(header(b"b", raw={116: base256(-5, 8)}), "gid"),
    "time before 1970": read(header(b"b", raw={136: base256(-5, 12)}) + END, {b"b": {"mtime_s": -5}}),
    "time after 2106": read(header(b"b", raw={136: base256(2**40, 12)}) + END, {b"b": {}}),
    "mode with type bits": read(entry(b"b", mode=0o104755), {b"b": {"mode": 0o4755}}),
    "v7 header": read(entry(b"b", b"x", b"\0", magic=V7), {b"b": {"content": b"x"}}),
    "v7 folder": read(entry(b"b/", b"", b"\0", magic=V7), {b"b": {"kind": EntryKind.DIRECTORY}}),
    "file with a slash at its end": read(entry(b"b/", b"", FILE), {b"b": {"kind": EntryKind.DIRECTORY}}),
    "contiguous file": read(entry(b"b", b"x", b"7"), {b"b": {"content": b"x"}}),
    "ustar prefix": read(entry(b"b", prefix=b"p/q"), {b"p": {}, b"p/q": {}, b"p/q/b": {}}),
    "prefix in a GNU header": read(entry(b"b", prefix=b"p/q", magic=GNU), {b"b": {}}),
    "star's prefix": read(entry(b"b", prefix=b"p", raw={476: b"00000000001\0", 508: b"tar\0"}), {b"p": {}, b"p/b": {}}),
    "name of 100 bytes without NUL": read(entry(b"n" * 100), {b"n" * 100: {}}),
    "unknown type": refuse(entry(b"b", kind=b"Z"), "type", "b"),
    "multi-volume": refuse(entry(b"b", kind=b"M"), "type", "b"),
    "volume label": refuse(entry(b"b", kind=b"V"), "type", "b"),
    "GNU folder dump": refuse(entry(b"b", kind=b"D"), "type", "b"),
    "type with the top bit": refuse(entry(b"b", kind=b"\xff"), "type", "b"),
    "folder with a size": read(header(b"d", FOLDER, size=5) + A, {b"d": {"kind": EntryKind.DIRECTORY}, **ONE}),
    "hard link with a size": read(A + header(b"b", HARDLINK, link=b"a", size=9) + END, {b"a": {}, b"b": {"content": b"x"}}),
    "device with a size": read(header(b"n", CHARACTER, device=(1, 3), size=4) + A, {b"n": {"device": (1, 3)}, **ONE}),
    "device number too large": refuse(header(b"n", CHARACTER, raw={329: base256(5000, 8)}), "device number", "n"),
    "device number not a number": refuse(header(b"n", BLOCKDEV, raw={329: b"zz"}), "major"),
    "junk in device fields of a file": read(header(b"b", raw={329: b"zzzzzzzz"}), {b"b": {}}),
    "whiteout device of overlayfs": read(entry(b"n", kind=CHARACTER), {b"n": {"kind": EntryKind.CHARACTER}}),
    "block device": read(entry(b"n", kind=BLOCKDEV, device=(8, 300)), {b"n": {"device": (8, 300)}}),
    "FIFO": read(entry(b"n", kind=FIFO), {b"n": {"kind": EntryKind.FIFO}}),
    # Names
    "no name": refuse(header(b""), "no name"),
    "file in place of the root": refuse(entry(b"./", b"x", FILE, raw={0: b"."}), "place of the root", "."),
    "link in place of the root": refuse(symlink(b"/", b"etc"), "place of the root"),
    "root folder": read(folder(b"./") + A, ONE),
    "name upwards": refuse(entry(b"../evil"), "leads upwards", "../evil"),
    "name upwards inside": refuse(entry(b"a/../../evil"), "leads upwards"),
    "name that stays inside upwards": refuse(entry(b"a/../b"), "leads upwards"),
    "name only upwards": refuse(folder(b".."), "leads upwards"),
    "name upwards in PAX": refuse(pax({b"path": b"../../etc/passwd"}) + A, "leads upwards", "../../etc/passwd"),
    "name upwards in a GNU header": refuse(extended(b"L", b"x/../../y\0") + A, "leads upwards"),
    "absolute name": read(entry(b"/etc/passwd"), {b"etc": {}, b"etc/passwd": {}}),
    "many slashes": read(entry(b"//./etc///./passwd"), {b"etc": {}, b"etc/passwd": {}}),
    "dots that are names": read(entry(b".../..a/b.."), {b"...": {}, b".../..a": {}, b".../..a/b..": {}}),
    "not UTF-8": read(entry(b"caf\xe9"), {b"caf\xe9": {}}),
    "line feed and quotes": read(entry(b"a\n\"' b"), {b"a\n\"' b": {}}),
    "terminal escape in a refused name": refuse(entry(b"\x1b[31m/../x"), "leads upwards", "\\x1b[31m/../x"),
    "name part of 255": read(entry(b"n" * 255), {b"n" * 255: {}}),
    "name part of 256": refuse(entry(b"n" * 256), "longer than 255"),
    "name of 5000": refuse(entry(b"n/" * 2500 + b"x"), "longer than 4095"),
    "GNU long name": read(entry(LONG), {**_FOLDERS_OF_LONG, LONG: {}}),
    "GNU long name without NUL": read(extended(b"L", LONG) + A, {**_FOLDERS_OF_LONG, LONG: {}}),
    "GNU long name empty": refuse(extended(b"L", b"") + A, "no name"),
    "GNU long name of 2 MiB": refuse(extended(b"L", b"n" * 2 * MIB) + A, "larger than"),
    "GNU long link": read(symlink(b"l", b"t/" * 200), {b"l": {"link": b"t/" * 200}}),
    "GNU long name twice": read(extended(b"L", b"p\0") + extended(b"L", b"q\0") + A, {b"q": {}}),
    "nine extended headers": refuse(extended(b"L", b"p\0") * 9 + A, "extended headers precede"),
    "endless extended headers": refuse(extended(b"L", b"p\0") * 5000, "extended headers precede"),
    "symbolic link to nothing": refuse(symlink(b"l", b""), "to nothing", "l"),
    "symbolic link of 4096": refuse(symlink(b"l", b"t" * 4096), "longer than 4095", "l"),
    "hard link to nothing": refuse(hardlink(b"l", b""), "to nothing", "l"),
    "hard link upwards": refuse(hardlink(b"l", b"../../etc/shadow"), "leads upwards", "l"),
    "hard link to the root": refuse(hardlink(b"l", b"/"), "to the root", "l"),
    # PAX
    "PAX name": read(pax({b"path": b"caf\xc3\xa9"}) + A, {b"caf\xc3\xa9": {"content": b"x"}}),
    "PAX name in bytes": read(pax({b"hdrcharset": b"BINARY", b"path": b"\xff"}) + A, {b"\xff": {}}),
    "PAX unknown character set": refuse(pax({b"hdrcharset": b"EBCDIC"}) + A, "character set"),
    "PAX name with a NUL": refuse(pax({b"path": b"a\0b"}) + A, "NUL"),
    "PAX empty name": read(pax({b"path": b""}) + A, ONE),
    "PAX name with a line feed": read(pax({b"path": b"p\nq"}) + A, {b"p\nq": {}}),
    "PAX size": read(pax({b"size": b"1"}) + header(b"a", size=0) + padded(b"x") + END, ONE),
    "PAX size negative": refuse(pax({b"size": b"-1"}) + A, "size"),
    "PAX size of 40 digits": refuse(pax({b"size": b"9" * 40}) + A, "size"),
    "PAX size in hex": refuse(pax({b"size": b"0x1"}) + A, "size"),
    "PAX owner": read(pax({b"uid": b"4000000000", b"gid": b"7"}) + A, {b"a": {"uid": 4_000_000_000, "gid": 7}}),
    "PAX owner too large": refuse(pax({b"uid": b"4294967295"}) + A, "uid"),
    "PAX time with a fraction": read(pax({b"mtime": b"12.999999999"}) + A, {b"a": {"mtime_s": 12}}),
    "PAX time negative with a fraction": read(pax({b"mtime": b"-1.5"}) + A, {b"a": {"mtime_s": -2}}),
    "PAX time not a number": refuse(pax({b"mtime": b"inf"}) + A, "mtime"),
    "PAX unknown keys": read(pax({b"VENDOR.thing": b"\0\xff", b"atime": b"x"}) + A, ONE),
    "PAX record too long": refuse(extended(b"x", b"99 path=b\n") + A, "malformed record"),
    "PAX record too short": refuse(extended(b"x", b"3 path=b\n") + A, "malformed record"),
    "PAX record of length zero": refuse(extended(b"x", b"0 path=b\n") + A, "malformed record"),
    "PAX record of a huge length": refuse(extended(b"x", b"999999999999 path=b\n") + A, "without a length"),
    "PAX record without equals": refuse(extended(b"x", b"7 path\n") + A, "malformed record"),
    "PAX record without line feed": refuse(extended(b"x", b"9 path=bb") + A, "malformed record"),
    "PAX record without key": refuse(extended(b"x", b"5 =b\n") + A, "malformed record"),
    "PAX record with a sign": refuse(extended(b"x", b"+9 path=b\n") + A, "without a length"),
    "PAX padded with NULs": read(extended(b"x", record(b"path", b"p") + bytes(100)) + A, {b"p": {}}),
    "PAX header of 2 MiB": refuse(extended(b"x", record(b"comment", b"x" * 2 * MIB)) + A, "larger than"),
    "PAX header that claims 8 GiB": refuse(header(b"p", b"x", size=2**33 - 1), "larger than"),
    "PAX header of Sun": read(pax({b"path": b"p"}, b"X") + A, {b"p": {}}),
    "PAX global comment": read(pax({b"comment": b"c0ffee"}, b"g") + A, ONE),
    "PAX global name": refuse(pax({b"path": b"p"}, b"g") + A, "global"),
    "PAX global attribute": refuse(pax({b"SCHILY.xattr.user.a": b"1"}, b"g") + A, "global"),
    "attribute": read(pax({b"SCHILY.xattr.user.a": b"\0\n="}) + A, {b"a": {"xattrs": ((b"user.a", b"\0\n="),)}}),
    "attribute of libarchive": read(
        pax({b"LIBARCHIVE.xattr.user.a%20b": b"AAE"}) + A, {b"a": {"xattrs": ((b"user.a b", b"\0\1"),)}}
    ),
    "attribute not base64": refuse(pax({b"LIBARCHIVE.xattr.user.a": b"!!"}) + A, "base64"),
    "attribute without name": refuse(pax({b"SCHILY.xattr.": b"1"}) + A, "attribute"),
    "attribute with a long name": refuse(pax({b"SCHILY.xattr.user." + b"n" * 300: b"1"}) + A, "attribute"),
    "attribute of 70 KB": refuse(pax({b"SCHILY.xattr.user.a": b"1" * 70000}) + A, "larger than 65536"),
    "attribute of overlayfs": read(pax({b"SCHILY.xattr.trusted.overlay.opaque": b"y"}) + folder(b"d"), {b"d": {"xattrs": ()}}),
    "attribute for access control": read(pax({b"SCHILY.xattr.system.posix_acl_access": b"\2"}) + A, {b"a": {"xattrs": ()}}),
    "attribute on a link": read(pax({b"SCHILY.xattr.trusted.a": b"1"}) + symlink(b"l", b"t"), {b"l": {"xattrs": ((b"trusted.a", b"1"),)}}),
    "attributes over the bound": refuse(
        (pax({b"SCHILY.xattr.user.a": b"1" * 60000}) + A) * 3, "attributes come to more", "a", bounds=Bounds(xattr_bytes=130_000)
    ),
    # Sparse files
    "old sparse": read(old_sparse(2048, [(0, 512), (1024, 512)], 1024) + b"x" * 512 + b"y" * 512, {b"s": {"content": b"x" * 512 + bytes(512) + b"y" * 512 + bytes(512)}}),
    "old sparse, odd pieces": read(old_sparse(700, [(3, 4), (500, 200)], 204) + padded(b"abcd" + b"z" * 200), {b"s": {"content": bytes(3) + b"abcd" + bytes(493) + b"z" * 200}}),
    "old sparse, extended": read(
        old_sparse(1000, [(0, 1), (2, 1), (4, 1), (6, 1)], 5, more=True) + padded(b"%011o\0%011o\0" % (8, 1)) + padded(b"abcde"),
        {b"s": {"content": b"a\0b\0c\0d\0e" + bytes(991)}},
    ),
    "old sparse, endless map": refuse(old_sparse(1000, [(0, 1)], 5, more=True) + (b"%011o\0%011o\0" % (8, 0) * 21 + b"\1" + bytes(7)) * 7000, "too long", "s"),
    "old sparse in a ustar header": refuse(entry(b"s", kind=b"S"), "sparse", "s"),
    "old sparse, overlapping": refuse(old_sparse(100, [(0, 50), (40, 10)], 60) + padded(b"x" * 60), "overlaps", "s"),
    "old sparse, past the end": refuse(old_sparse(10, [(5, 10)], 10) + padded(b"x" * 10), "past the file", "s"),
    "old sparse, sizes differ": refuse(old_sparse(100, [(0, 50)], 60) + padded(b"x" * 60), "are stored", "s"),
    "sparse 1.0": read(stored_sparse(5000, [(0, 3), (4000, 3)], b"abcdef"), {b"s": {"content": b"abc" + bytes(3997) + b"def" + bytes(997)}}),
    "sparse 1.0, all hole": read(stored_sparse(5000, [(5000, 0)], b""), {b"s": {"content": bytes(5000)}}),
    "sparse 1.0, empty map": read(stored_sparse(100, [], b""), {b"s": {"content": bytes(100)}}),
    "sparse 1.0, touching pieces": read(stored_sparse(6, [(0, 3), (3, 3)], b"abcdef"), {b"s": {"content": b"abcdef"}}),
    "sparse 1.0, map cut off": refuse(pax({**SPARSE, b"GNU.sparse.realsize": b"9"}) + entry(b"s", b"5\n0\n"), "cut off", "s"),
    "sparse 1.0, a million pieces": refuse(pax({**SPARSE, b"GNU.sparse.realsize": b"9"}) + entry(b"s", padded(b"1000000\n")), "too long", "s"),
    "sparse 1.0, not numbers": refuse(pax({**SPARSE, b"GNU.sparse.realsize": b"9"}) + entry(b"s", padded(b"x\n")), "not a number", "s"),
    "sparse 1.0, no size": refuse(pax(SPARSE) + entry(b"s", padded(b"0\n")), "realsize", "s"),
    "sparse 1.0, name upwards": refuse(pax({**SPARSE, b"GNU.sparse.name": b"../s", b"GNU.sparse.realsize": b"0"}) + entry(b"s", padded(b"0\n")), "upwards", "../s"),
    "sparse 0.1": read(
        pax({b"GNU.sparse.size": b"10", b"GNU.sparse.name": b"s", b"GNU.sparse.map": b"2,3"}) + entry(b"x", b"abc"),
        {b"s": {"content": b"\0\0abc" + bytes(5)}},
    ),
    "sparse 0.0": read(
        pax([(b"GNU.sparse.size", b"10"), (b"GNU.sparse.numblocks", b"2"), (b"GNU.sparse.offset", b"0"), (b"GNU.sparse.numbytes", b"1"),
             (b"GNU.sparse.offset", b"8"), (b"GNU.sparse.numbytes", b"1")]) + entry(b"s", b"ab"),
        {b"s": {"content": b"a" + bytes(7) + b"b\0"}},
    ),
    "sparse 0.0, out of order": refuse(pax([(b"GNU.sparse.numbytes", b"1")]) + entry(b"s", b"a"), "in order"),
    "sparse of an unknown version": refuse(pax({**SPARSE, b"GNU.sparse.major": b"2", b"GNU.sparse.realsize": b"1"}) + entry(b"s"), "unknown format", "s"),
    "sparse of 512 PiB": refuse(stored_sparse(2**59, [], b""), "holes of its sparse files", "s"),
    "sparse over the bound": refuse(stored_sparse(2**30, [], b""), "come to more than 512 MiB", "s", bounds=Bounds(hole_bytes=512 * MIB)),
    "sparse of 1 GiB": read(stored_sparse(2**30, [(2**29, 1)], b"x"), {b"s": {"content": b"sparse"}}),
    # Bounds and compression
    "too many entries": refuse(b"".join(entry(b"f%d" % n) for n in range(11)), "more than 10 entries", "f10", bounds=Bounds(entries=10)),
    "too much content": refuse(entry(b"f", b"x" * 600) * 2, "come to more than", "f", bounds=Bounds(content_bytes=1000)),
    "too many owners": refuse(b"".join(entry(b"f%d" % n, uid=n) for n in range(9)), "different owners", "f8", bounds=Bounds(owners=8)),
    "gzip": read(A + END, ONE, compression=Compression.GZIP),
    "zstd": read(A + END, ONE, compression=Compression.ZSTD),
    "gzip in two members": {"layers": [], "blobs": [gzip.compress(A[:700]) + gzip.compress(A[700:] + END)], "tree": ONE},
    "gzip cut off": {"layers": [], "blobs": [gzip.compress(entry(b"f", bytes(range(256)) * 999))[:-20]], "refused": "ends in the middle"},
    "gzip bomb": {"layers": [], "blobs": [gzip.compress(header(b"f", size=2**29) + bytes(2**29), 9)], "refused": "times its size"},
    "gzip with a wrong sum": {"layers": [], "blobs": [gzip.compress(entry(b"f", b"x" * 9))[:-8] + bytes(8)], "refused": "damaged"},
    "gzip header only": {"layers": [], "blobs": [b"\x1f\x8b\x08\x00"], "refused": "ends in the middle"},
    "xz": {"layers": [], "blobs": [b"\xfd7zXZ\x00" + bytes(600)], "refused": ""},
    "text": {"layers": [], "blobs": [b"Not found\n" * 100], "refused": "not a number"},
}  # fmt: skip


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 150


@pytest.mark.parametrize("name", CASES)
def test_odd_header(name: str, check: Any, request: pytest.FixtureRequest) -> None:
    check(CASES[name])
