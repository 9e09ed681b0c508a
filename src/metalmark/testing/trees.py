"""Trees of files as plain values, from wherever they are, so that a test can compare them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from metalmark.oci import Bounds, Entry, EntryKind, MergePlan, Merger, Tally, TarReader

_BY_FORMAT = {
    stat.S_IFREG: EntryKind.FILE, stat.S_IFDIR: EntryKind.DIRECTORY, stat.S_IFLNK: EntryKind.SYMLINK,
    stat.S_IFCHR: EntryKind.CHARACTER, stat.S_IFBLK: EntryKind.BLOCK, stat.S_IFIFO: EntryKind.FIFO,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One file of a tree."""

    kind: EntryKind
    mode: int
    uid: int = 0
    gid: int = 0
    mtime_s: int = 0
    content: bytes = b""
    """Of a file, holes as zeros."""
    link: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    names: tuple[bytes, ...] = ()
    """All names of it when there are several."""


Tree = dict[bytes, Seen]
"""Files by name, without the root."""


class TreeRecorder:
    """Takes the merged tree (`metalmark.oci.merge.EntrySink`) into memory."""

    def __init__(self) -> None:
        self._seen: Tree = {}
        self._links: list[tuple[bytes, bytes]] = []

    def add(self, entry: Entry, content: Iterable[memoryview] = ()) -> None:
        """Take one entry.

        Raises:
            AssertionError: The name has come before, or a hard link comes before what it is to.
        """
        assert entry.name not in self._seen, f"{entry.name!r} comes twice"
        assert entry.name
        if entry.kind is EntryKind.HARDLINK:
            assert entry.link in self._seen, f"{entry.name!r} comes before {entry.link!r}"
            self._links.append((entry.name, entry.link))
            self._seen[entry.name] = self._seen[entry.link]
            return
        data = b"".join(bytes(piece) for piece in content)
        assert len(data) == entry.stored_bytes
        self._seen[entry.name] = Seen(
            kind=entry.kind, mode=0o777 if entry.kind is EntryKind.SYMLINK else entry.mode, uid=entry.uid,
            gid=entry.gid, mtime_s=entry.mtime_s, content=_expanded(entry, data), link=entry.link,
            device=entry.device, xattrs=entry.xattrs,
        )  # fmt: skip

    def tree(self) -> Tree:
        """Return what was taken."""
        groups: dict[bytes, set[bytes]] = {}
        for name, target in self._links:
            group = groups.setdefault(target, {target})
            group.add(name)
            groups[name] = group
        return {name: replace(seen, names=tuple(sorted(groups.get(name, ())))) for name, seen in self._seen.items()}


def _expanded(entry: Entry, data: bytes) -> bytes:
    if entry.segments is None:
        return data
    if entry.size_bytes > 64 * 1024 * 1024:
        return b"sparse"
    whole = bytearray(entry.size_bytes)
    taken = 0
    for offset, length in entry.segments:
        whole[offset : offset + length] = data[taken : taken + length]
        taken += length
    return bytes(whole)


def read_tree(folder: Path) -> Tree:
    """Return the tree of a folder of this machine."""
    tree: Tree = {}
    inodes: dict[tuple[int, int], list[bytes]] = {}
    stack = [os.fsencode(folder)]
    start = len(stack[0]) + 1
    while stack:
        parent = stack.pop()
        for item in os.scandir(parent):
            name = item.path[start:]
            tree[name] = _seen(item.path)
            if item.is_dir(follow_symlinks=False):
                stack.append(item.path)
            else:
                inodes.setdefault((item.stat(follow_symlinks=False).st_dev, item.inode()), []).append(name)
    for names in inodes.values():
        if len(names) > 1:
            for name in names:
                tree[name] = replace(tree[name], names=tuple(sorted(names)))
    return tree


def _seen(path: bytes) -> Seen:
    status = os.lstat(path)
    kind = _BY_FORMAT[stat.S_IFMT(status.st_mode)]
    is_device = kind in (EntryKind.CHARACTER, EntryKind.BLOCK)
    return Seen(
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_s=int(status.st_mtime // 1),
        content=Path(os.fsdecode(path)).read_bytes() if kind is EntryKind.FILE else b"",
        link=os.fsencode(Path(os.fsdecode(path)).readlink()) if kind is EntryKind.SYMLINK else b"",
        device=(os.major(status.st_rdev), os.minor(status.st_rdev)) if is_device else (0, 0),
        xattrs=_xattrs(path),
    )


def _xattrs(path: bytes) -> tuple[tuple[bytes, bytes], ...]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        # A squashfs without any attribute says that it cannot have them.
        if error.errno == errno.EOPNOTSUPP:
            return ()
        raise
    return tuple(sorted((os.fsencode(name), os.getxattr(path, name, follow_symlinks=False)) for name in names))


def merge_in_one_pass(layers: Sequence[bytes], *, bounds: Bounds | None = None) -> Tree:
    """Merge tar streams, bottom layer first, as for a layer stack without oddities.

    Raises:
        OutOfOrder: The layers need two passes.
        LayerRefused: A layer is refused; its name is ``layer-`` and its number.
    """
    tally, recorder = Tally(bounds or Bounds()), TreeRecorder()
    merger = Merger(recorder, tally=tally)
    for index in range(len(layers) - 1, -1, -1):
        reader = TarReader([layers[index]], layer=f"layer-{index}", tally=tally)
        merger.merge_layer(reader, index=index, name=f"layer-{index}")
    merger.finish()
    return recorder.tree()


def merge_in_two_passes(layers: Sequence[bytes], *, bounds: Bounds | None = None) -> Tree:
    """Merge tar streams, bottom layer first, as if they had been extracted one over the other.

    Raises:
        LayerRefused: A layer is refused; its name is ``layer-`` and its number.
    """
    tally, recorder = Tally(bounds or Bounds()), TreeRecorder()
    names = tuple(f"layer-{index}" for index in range(len(layers)))
    plan = MergePlan(names, tally=tally)
    for index, layer in enumerate(layers):
        plan.add_layer(TarReader([layer], layer=names[index], tally=tally), index=index)
    for index in plan.wanted():
        reader = TarReader([layers[index]], layer=names[index], tally=Tally(Bounds()))
        plan.emit_layer(reader, recorder, index=index)
    plan.finish(recorder)
    return recorder.tree()
