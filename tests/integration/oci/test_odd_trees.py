"""Layers that clash, remove, link and hide: each stack is merged right, or refused with layer and entry named."""

# ruff: noqa: E501 - one case a line: the corpus is to be read as a table

from __future__ import annotations

from typing import Any

import pytest

from metalmark.oci import Bounds, EntryKind
from metalmark.testing.layers import CHARACTER, END, FIFO, entry, folder, hardlink, symlink

DIR = {"kind": EntryKind.DIRECTORY}
FILE = {"kind": EntryKind.FILE}
LINK = {"kind": EntryKind.SYMLINK}


def has(data: bytes) -> dict[str, Any]:
    return {"content": data}


def read(tree: dict[bytes, dict[str, Any]], *layers: bytes, **more: Any) -> dict[str, Any]:
    return {"layers": [layer + END for layer in layers], "tree": tree, **more}


def refuse(why: str, layer: int, name: str, *layers: bytes, **more: Any) -> dict[str, Any]:
    return {"layers": [layer + END for layer in layers], "refused": why, "layer": layer, "entry": name, **more}


CASES: dict[str, dict[str, Any]] = {
    # Removal
    "no layers": {"layers": [], "tree": {}},
    "removal of a file": read({}, entry(b"a"), entry(b".wh.a")),
    "removal of a folder": read({}, entry(b"d/e/f"), entry(b".wh.d")),
    "removal of nothing": read({}, entry(b".wh.a")),
    "removal in a folder that is not there": read({}, entry(b"p/q/.wh.a")),
    "removal, then made again above": read({b"a": has(b"2")}, entry(b"a", b"1"), entry(b".wh.a"), entry(b"a", b"2")),
    "removal and the file in one layer": read({b"a": has(b"2")}, entry(b"a", b"1"), entry(b".wh.a") + entry(b"a", b"2")),
    "the file and removal in one layer": read({b"a": has(b"2")}, entry(b"a", b"1"), entry(b"a", b"2") + entry(b".wh.a")),
    "removal of a folder that is filled anew": read({b"d": {"mode": 0o755}, b"d/n": {}}, folder(b"d", mode=0o700) + entry(b"d/o"), entry(b".wh.d") + entry(b"d/n")),
    "removal that is a folder": read({}, entry(b"a"), folder(b".wh.a")),
    "removal that is a link": read({}, entry(b"a"), symlink(b".wh.a", b"/etc/passwd")),
    "removal that is a hard link": read({b"b": {}}, entry(b"a") + entry(b"b"), hardlink(b".wh.a", b"b")),
    "removal with content": read({b"b": {}}, entry(b"a"), entry(b".wh.a", b"x" * 5000) + entry(b"b")),
    "removal of a name that starts alike": read({b"ab": {}}, entry(b"ab"), entry(b".wh.a")),
    "removal twice": read({}, entry(b"a"), entry(b".wh.a") + entry(b".wh.a")),
    "removal of a link, not of what it leads to": read({b"d": DIR, b"d/f": {}}, entry(b"d/f") + symlink(b"l", b"d"), entry(b".wh.l")),
    "removal through a link": read({b"d": DIR, b"l": LINK}, entry(b"d/f") + symlink(b"l", b"d"), entry(b"l/.wh.f")),
    "removal through a link upwards": read({b"l": LINK}, entry(b"f") + symlink(b"l", b"../../.."), entry(b"l/.wh.f")),
    "removal of the root": refuse("removes nothing that has a name", 1, "d/.wh.", entry(b"d/f"), entry(b"d/.wh.")),
    "removal of .": refuse("removes nothing that has a name", 0, "d/.wh..", entry(b"d/.wh..")),
    "removal of ..": refuse("removes nothing that has a name", 0, "d/.wh...", entry(b"d/.wh...")),
    "a file in a removal": refuse("marks a removal", 0, ".wh.d/f", entry(b".wh.d/f")),
    "what aufs left": read({b"a": {}}, entry(b".wh..wh.aufs") + entry(b".wh..wh.plnk/12.34") + folder(b".wh..wh.orph") + entry(b"a")),
    "a name with .wh. inside": read({b"a.wh.b": {}}, entry(b"a.wh.b")),
    "removal below an upper file": read({b"d": has(b"2")}, entry(b"d/f"), entry(b"d/.wh.f"), entry(b"d", b"2")),
    # Opaque folders
    "opaque folder": read({b"d": DIR, b"d/n": {}}, entry(b"d/o"), folder(b"d") + entry(b"d/.wh..wh..opq") + entry(b"d/n")),
    "opaque after its content": read({b"d": DIR, b"d/n": {}}, entry(b"d/o"), folder(b"d") + entry(b"d/n") + entry(b"d/.wh..wh..opq")),
    "opaque keeps the folder's mode": read({b"d": {"mode": 0o700}}, folder(b"d", mode=0o700) + entry(b"d/o"), entry(b"d/.wh..wh..opq")),
    "opaque root": read({b"n": {}}, entry(b"a") + entry(b"d/b"), entry(b".wh..wh..opq") + entry(b"n")),
    "opaque folder that is not there": read({}, entry(b"d/.wh..wh..opq")),
    "opaque through a link": read({b"d": DIR, b"l": LINK}, entry(b"d/o") + symlink(b"l", b"d"), entry(b"l/.wh..wh..opq")),
    "opaque deep down": read({b"d": DIR, b"d/e": DIR, b"d/k": {}, b"d/e/n": {}}, entry(b"d/e/o") + entry(b"d/k"), entry(b"d/e/.wh..wh..opq") + entry(b"d/e/n")),
    "opaque twice": read({b"d": DIR, b"d/3": {}}, entry(b"d/1"), entry(b"d/.wh..wh..opq") + entry(b"d/2"), entry(b"d/.wh..wh..opq") + entry(b"d/3")),
    # One thing for another
    "file for folder": read({b"d": has(b"2")}, entry(b"d/e/f"), entry(b"d", b"2")),
    "folder for file": read({b"d": DIR}, entry(b"d"), folder(b"d")),
    "folder for file, with content": read({b"d": DIR, b"d/f": {}}, entry(b"d"), folder(b"d") + entry(b"d/f")),
    "link for folder": read({b"d": LINK}, entry(b"d/f"), symlink(b"d", b"/etc")),
    "folder for link": read({b"l": DIR, b"l/f": {}, b"d": DIR}, folder(b"d") + symlink(b"l", b"d"), folder(b"l") + entry(b"l/f")),
    "device for file": read({b"a": {"kind": EntryKind.CHARACTER}}, entry(b"a"), entry(b"a", b"", CHARACTER, device=(1, 3))),
    "file for FIFO": read({b"a": FILE}, entry(b"a", b"", FIFO), entry(b"a")),
    "folder, file, folder": read({b"d": DIR, b"d/3": {}}, entry(b"d/1"), entry(b"d"), folder(b"d") + entry(b"d/3")),
    "file twice in a layer": read({b"a": has(b"2")}, entry(b"a", b"1") + entry(b"a", b"2")),
    "file, folder in a layer": read({b"a": DIR, b"a/b": {}}, entry(b"a", b"1") + folder(b"a") + entry(b"a/b")),
    "folder, file in a layer": read({b"a": has(b"1")}, entry(b"a/b") + entry(b"a", b"1")),
    "folder described twice": read({b"a": {"mode": 0o711}}, folder(b"a", mode=0o700) + folder(b"a", mode=0o711)),
    "folder described after its content": read({b"a": {"mode": 0o700}, b"a/b": {}}, entry(b"a/b") + folder(b"a", mode=0o700)),
    "file in a file": refuse("which is a file", 1, "a/b", entry(b"a"), entry(b"a/b")),
    "file in a file of one layer": refuse("which is a file", 0, "a/b", entry(b"a") + entry(b"a/b")),
    "file in a device": refuse("which is a character device", 0, "n/b", entry(b"n", b"", CHARACTER) + entry(b"n/b")),
    "root described in every layer": read({b"a": {}}, folder(b"./", mode=0o700) + entry(b"a"), folder(b"/", mode=0o711)),
    # Links on the way
    "through a link of a lower layer": read({b"lib": LINK, b"usr": DIR, b"usr/lib": DIR, b"usr/lib/x": {}}, folder(b"usr/lib") + symlink(b"lib", b"usr/lib"), entry(b"lib/x")),
    "through a link of one layer": read({b"l": LINK, b"d": DIR, b"d/x": {}}, folder(b"d") + symlink(b"l", b"d") + entry(b"l/x")),
    "through an absolute link": read({b"l": LINK, b"etc": DIR, b"etc/x": {}}, symlink(b"l", b"/etc") + entry(b"l/x")),
    "through a link upwards": read({b"l": LINK, b"etc": DIR, b"etc/x": {}}, symlink(b"l", b"../../../../etc") + entry(b"l/x")),
    "through a link to the root": read({b"l": LINK, b"x": {}}, symlink(b"l", b"/") + entry(b"l/x")),
    "through a link up out of a folder": read({b"d": DIR, b"d/l": LINK, b"x": {}}, symlink(b"d/l", b"../..") + entry(b"d/l/x")),
    "through a link to nowhere": read({b"l": LINK, b"p": DIR, b"p/q": DIR, b"p/q/x": {}}, symlink(b"l", b"p/q") + entry(b"l/x")),
    "through a link into proc": read({b"l": LINK, b"proc": DIR, b"proc/self": DIR, b"proc/self/root": DIR, b"proc/self/root/x": {}}, symlink(b"l", b"/proc/self/root") + entry(b"l/x")),
    "through a chain of links": read({b"a": LINK, b"b": LINK, b"c": DIR, b"c/x": {}}, symlink(b"a", b"b") + symlink(b"b", b"c") + entry(b"a/x")),
    "through a link to itself": refuse("too many symbolic links", 0, "a/x", symlink(b"a", b"a") + entry(b"a/x")),
    "through links that double": refuse("too many symbolic links", 0, "l9/x", b"".join(symlink(b"l%d" % n, b"l%d/l%d" % (n - 1, n - 1)) for n in range(1, 10)) + symlink(b"l0", b".") + entry(b"l9/x")),
    "through a link to a file": refuse("which is a file", 1, "l/x", entry(b"f") + symlink(b"l", b"f"), entry(b"l/x")),
    "link swapped in under a folder": read({b"d": DIR, b"d/x": {}}, symlink(b"d", b"/etc"), folder(b"d"), entry(b"d/x")),
    "link written over through itself": read({b"l": has(b"2")}, symlink(b"l", b"/etc/passwd"), entry(b"l", b"2")),
    # Hard links
    "hard link": read({b"a": {"names": (b"a", b"b")}, b"b": has(b"1")}, entry(b"a", b"1") + hardlink(b"b", b"a")),
    "hard link to a link": read({b"s": LINK, b"t": LINK}, symlink(b"s", b"x") + hardlink(b"t", b"s")),
    "hard link to a device": read({b"n": {}, b"m": {"kind": EntryKind.CHARACTER}}, entry(b"n", b"", CHARACTER) + hardlink(b"m", b"n")),
    "hard link of links": read({name: {"names": (b"a", b"b", b"c")} for name in (b"a", b"b", b"c")}, entry(b"a") + hardlink(b"b", b"a") + hardlink(b"c", b"b")),
    "hard link to a lower layer": read({b"a": has(b"1"), b"b": {"names": (b"a", b"b")}}, entry(b"a", b"1"), hardlink(b"b", b"a")),
    "hard link to a lower layer, removed above": read({b"b": {"content": b"1", "names": ()}}, entry(b"a", b"1"), hardlink(b"b", b"a"), entry(b".wh.a")),
    "hard link to a lower layer, replaced above": read({b"a": has(b"2"), b"b": has(b"1")}, entry(b"a", b"1"), hardlink(b"b", b"a"), entry(b"a", b"2")),
    "hard link across three layers": read({b"c": has(b"1")}, entry(b"a", b"1"), hardlink(b"b", b"a") + entry(b".wh.a"), hardlink(b"c", b"b") + entry(b".wh.b")),
    "hard link whose source is replaced above": read({b"a": has(b"2"), b"b": has(b"1")}, entry(b"a", b"1") + hardlink(b"b", b"a"), entry(b"a", b"2")),
    "hard link whose source is removed above": read({b"b": has(b"1")}, entry(b"a", b"1") + hardlink(b"b", b"a"), entry(b".wh.a")),
    "hard link removed above": read({b"a": {"content": b"1", "names": ()}}, entry(b"a", b"1") + hardlink(b"b", b"a"), entry(b".wh.b")),
    "hard link through a link": read({b"d": DIR, b"d/a": {}, b"l": LINK, b"b": has(b"1")}, entry(b"d/a", b"1") + symlink(b"l", b"d") + hardlink(b"b", b"l/a")),
    "hard link absolute": read({b"a": {}, b"b": has(b"1")}, entry(b"a", b"1") + hardlink(b"b", b"/a")),
    "hard link over a folder": read({b"a": {}, b"d": has(b"1")}, entry(b"a", b"1") + entry(b"d/x"), hardlink(b"d", b"a")),
    "hard link to what is not there": refuse("which is not there", 0, "b", hardlink(b"b", b"a")),
    "hard link before what it is to": refuse("which is not there", 0, "b", hardlink(b"b", b"a") + entry(b"a")),
    "hard link to itself": refuse("which is not there", 0, "a", entry(b"a") + hardlink(b"a", b"a")),
    "hard link to a folder": refuse("which is a folder", 0, "b", folder(b"d") + hardlink(b"b", b"d")),
    "hard link to what the layer removes": refuse("which is not there", 1, "b", entry(b"a"), entry(b".wh.a") + hardlink(b"b", b"a")),
    "hard link to a file of the host": refuse("which is not there", 0, "b", hardlink(b"b", b"/etc/passwd")),
    "hard link through a link to the host": refuse("which is not there", 0, "b", symlink(b"l", b"/etc") + hardlink(b"b", b"l/passwd")),
    # Many
    "a thousand layers' worth of one name": read({b"a": has(b"199")}, *[entry(b"a", b"%d" % n) for n in range(200)]),
    "a folder of 3000": read({b"d": DIR, **{b"d/%d" % n: {} for n in range(3000)}}, b"".join(entry(b"d/%d" % n) for n in range(3000))),
    "a thousand hard links": read({b"f": {}, **{b"l%d" % n: {} for n in range(1000)}}, entry(b"f", b"x") + b"".join(hardlink(b"l%d" % n, b"f") for n in range(1000))),
    "a path of 2000 folders": read({b"/".join([b"d"] * n): {} for n in range(1, 2001)}, entry(b"/".join([b"d"] * 2000))),
    "paths that imply too much": refuse("more than 5000 entries and implied", 0, "/".join(["2"] * 60)[:120], b"".join(entry(b"/".join([b"%d" % n] * 1999)) for n in range(9)), bounds=Bounds(entries=5000)),
    "layers over the bound together": refuse("more than 10 entries", 0, "a4", b"".join(entry(b"a%d" % n) for n in range(6)), b"".join(entry(b"b%d" % n) for n in range(6)), bounds=Bounds(entries=10)),
}  # fmt: skip
CASES["paths that imply too much"]["entry"] = None


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 80


@pytest.mark.parametrize("name", CASES)
def test_odd_tree(name: str, check: Any) -> None:
    check(CASES[name])
