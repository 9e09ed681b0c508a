"""Random layers, merged here and unpacked one over the other by umoci, give the same tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metalmark.model import LayerRefused
from metalmark.oci import EntryKind
from metalmark.oci.rootfs_build import build_rootfs
from metalmark.system import MountFlag, Namespace, NamespaceThread, attached, mount
from metalmark.testing.images import FakeImage, FakeLayer, index_of, write_layout
from metalmark.testing.layers import (
    CHARACTER,
    END,
    FIFO,
    base256,
    entry,
    folder,
    hardlink,
    layer_blob,
    pax,
    symlink,
)
from metalmark.testing.trees import Seen, Tree, read_tree

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.skipif(os.geteuid() != 0, reason="umoci keeps owners, and squashfs is mounted, only as root"),
    pytest.mark.skipif(shutil.which("umoci") is None, reason="umoci is not installed"),
]

_PART = st.sampled_from([b"a", b"a", b"b", b"link"])
_FOLDERS = st.lists(_PART, max_size=2)
_LEAVES = st.sampled_from([b"f", b"f", b"g", b"link", b"a", b"caf\xc3\xa9", b"n" * 120])
_NAMES = st.tuples(_FOLDERS, _LEAVES).map(lambda pair: b"/".join([*pair[0], pair[1]]))
_FOLDER_NAMES = st.one_of(_NAMES, st.lists(_PART, min_size=1, max_size=2).map(b"/".join))
_EXAMPLES = 400 if os.environ.get("METALMARK_SOAK") else 40


@st.composite
def _entries(draw: st.DrawFn) -> bytes:
    name = draw(_NAMES)
    where = draw(_FOLDER_NAMES)
    parent, _, base = where.rpartition(b"/")
    fields: dict[str, object] = {
        "mode": draw(st.sampled_from([0o600, 0o644, 0o755, 0o4755, 0o2711, 0o1777])),
        "uid": draw(st.sampled_from([0, 5, 100000])),
        "gid": draw(st.sampled_from([0, 7])),
        "mtime": draw(st.integers(1, 2**31)),
    }
    match draw(
        st.sampled_from(
            ["file"] * 3 + ["folder"] * 3 + ["symlink", "hardlink", "whiteout", "opaque", "xattr", "device", "fifo"]
        )
    ):
        case "file":
            return entry(name, draw(st.binary(max_size=5)) * draw(st.sampled_from([1, 1, 40000])), **fields)
        case "folder":
            return folder(where, **fields)
        case "symlink":
            return symlink(name, draw(st.one_of(_FOLDER_NAMES, st.sampled_from([b"/a", b"..", b"../b"]))), uid=3)
        case "hardlink":
            return hardlink(name, draw(_NAMES), **fields)
        case "whiteout":
            return entry((parent + b"/" if parent else b"") + b".wh." + base)
        case "opaque":
            return entry(where + b"/.wh..wh..opq")
        case "xattr":
            return pax({b"path": name, b"SCHILY.xattr.user.m": b"v\n\0" + draw(st.binary(max_size=3))}) + entry(
                b"x", b"1", **fields
            )
        case "device":
            return entry(name, b"", CHARACTER, device=(1, draw(st.sampled_from([3, 300]))), **fields)
        case _:
            return entry(name, b"", FIFO, **fields)


_LAYERS = st.lists(st.lists(_entries(), max_size=7).map(lambda parts: b"".join(parts) + END), min_size=1, max_size=4)


@settings(
    max_examples=_EXAMPLES, deadline=None, derandomize=not os.environ.get("METALMARK_SOAK"), database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
@given(_LAYERS)
def test_merged_tree_is_what_umoci_unpacks(layers: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        theirs = _unpacked_by_umoci(scratch, layers)
        ours = _built(scratch, layers)
    if theirs is None:
        # What umoci stumbles over (a link to nothing, a file in a file) may not show in the end, and is fine then.
        return
    assert ours is not None
    assert _comparable(ours) == _comparable(theirs)


def _comparable(tree: Tree) -> Tree:
    # umoci gives folders that no layer describes the current time, and resets others when it touches them later.
    return {name: replace(seen, mtime_s=0) if seen.kind is EntryKind.DIRECTORY else seen for name, seen in tree.items()}


def _unpacked_by_umoci(scratch: Path, layers: list[bytes]) -> Tree | None:
    image = FakeImage(layers=[FakeLayer.plain(layer) for layer in layers])
    index = index_of([image.descriptor(tag="latest")])
    layout = write_layout(scratch / "layout", index=index, blobs=image.blobs)
    done = subprocess.run(
        ["umoci", "unpack", "--image", f"{layout}:latest", str(scratch / "bundle")], capture_output=True, check=False
    )
    return read_tree(scratch / "bundle/rootfs") if done.returncode == 0 else None


def _built(scratch: Path, layers: list[bytes]) -> Tree | None:
    image = scratch / "image.squashfs"
    image.touch()
    blobs = [layer_blob(scratch, layer) for layer in layers]
    try:
        anyio.run(lambda: build_rootfs(blobs, image))
    except LayerRefused as refused:
        assert refused.layer in [str(blob.digest) for blob in blobs]
        return None
    with NamespaceThread(Namespace.MOUNT) as thread:
        return thread.call(lambda: _read_mounted(image, scratch))


def _read_mounted(image: Path, scratch: Path) -> Tree:
    with _mounted(image, scratch / "mounted") as root:
        return read_tree(root)


@contextmanager
def _mounted(image: Path, place: Path) -> Iterator[Path]:
    place.mkdir()
    with attached(image, read_only=True) as device:
        mount(str(device), place, fs_type="squashfs", flags=MountFlag.READ_ONLY)
    yield place


def test_every_kind_of_file_comes_through_mksquashfs(tmp_path: Path) -> None:
    capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    odd = b"\xff\n \\\xfe"
    layer = (
        folder(b"./", mode=0o1711, uid=5, gid=6, mtime=77)
        + folder(b"d", mode=0o2750, uid=5, gid=6, mtime=2**32 - 1)
        + entry(b"d/" + odd, b"x" * 300000, mode=0o4755, raw={108: base256(2**31, 8)}, mtime=3)
        + hardlink(b"again", b"d/" + odd)
        + pax({b"SCHILY.xattr.security.capability": capability, b"SCHILY.xattr.user.empty": b"",
               b"SCHILY.xattr.trusted.overlay.opaque": b"y", b"SCHILY.xattr.system.posix_acl_access": b"\2"})
        + entry(b"ping", b"p")
        + symlink(b"s", b"t" * 4000)
        + hardlink(b"s2", b"s")
        + entry(b"null", b"", CHARACTER, device=(1, 3))
        + entry(b"minor", b"", CHARACTER, device=(4095, 2**20 - 1))
        + entry(b"pipe", b"", FIFO)
        + entry(b"n" * 255 + b"/" + b"m" * 255, b"long")
        + END
    )  # fmt: skip
    image = tmp_path / "image.squashfs"
    image.touch()
    anyio.run(lambda: build_rootfs([layer_blob(tmp_path, layer)], image))

    def look() -> tuple[Tree, os.stat_result]:
        with _mounted(image, tmp_path / "mounted") as root:
            return read_tree(root), root.stat()

    with NamespaceThread(Namespace.MOUNT) as thread:
        tree, root = thread.call(look)
    assert (root.st_mode, root.st_uid, root.st_gid, root.st_mtime) == (0o41711, 5, 6, 77)
    assert tree[b"d"] == Seen(kind=EntryKind.DIRECTORY, mode=0o2750, uid=5, gid=6, mtime_s=2**32 - 1)
    names = (b"again", b"d/" + odd)
    big = Seen(kind=EntryKind.FILE, mode=0o4755, uid=2**31, mtime_s=3, content=b"x" * 300000, names=names)
    assert tree[b"again"] == tree[b"d/" + odd] == big
    assert tree[b"ping"].xattrs == ((b"security.capability", capability), (b"user.empty", b""))
    assert tree[b"s"].link == b"t" * 4000
    assert tree[b"s2"].names == (b"s", b"s2")
    assert tree[b"null"].device == (1, 3)
    assert tree[b"minor"].device == (4095, 2**20 - 1)
    assert tree[b"pipe"].kind is EntryKind.FIFO
    assert tree[b"n" * 255 + b"/" + b"m" * 255].content == b"long"
    assert tree[b"n" * 255].mode == 0o755
    assert b"" not in tree
