"""Layers merged in one pass each, top layer first: what an upper layer decides is never looked at again below.

The rules are those of the OCI image specification ("Applying Changesets") as overlayfs and the extractors of layers
carry them out. A path is a node of a tree that outlives the layers; content goes to the writer the moment it is seen
to be the one that shows, and only names, and what folders are, stay in memory. Hard links and folders are written last.

Some layers cannot be merged in this order: a name under a symbolic link of a lower layer, a hard link to what an upper
layer hides, a file twice in one layer. They are rare, and `OutOfOrder` says that `merge_plan` is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from enum import Enum
from typing import Protocol

from metalmark.model import LayerRefused
from metalmark.oci.bounds import Tally
from metalmark.oci.entry import AUFS, OPAQUE, WHITEOUT, Entry, EntryKind, shown

IMPLIED_MODE = 0o755
"""Of a folder that no layer describes; it belongs to root and is from 1970."""


class OutOfOrder(Exception):
    """The layers need to be looked at from the bottom first. Never leaves this package."""


class EntrySource(Protocol):
    """A layer that is being read: `metalmark.oci.tar_stream.TarReader`."""

    def entries(self) -> Iterator[Entry]:
        """Yield its entries in order."""
        ...

    def content(self) -> Iterator[memoryview]:
        """Yield the content of the entry that came last."""
        ...


class EntrySink(Protocol):
    """Takes the merged tree: `metalmark.oci.tar_writer.TarWriter`. Folders may come after what is in them."""

    def add(self, entry: Entry, content: Iterable[memoryview] = ()) -> None:
        """Take one entry."""


class _Node:
    """What is known about one path."""

    __slots__ = (
        "children",
        "entry",
        "hidden_below",
        "is_live",
        "layer",
        "nondir_at",
        "opaque_below",
        "used_at",
        "used_early",
    )

    def __init__(self) -> None:
        self.children: dict[bytes, _Node] | None = None
        self.entry: Entry | None = None
        """Of a folder that was decided."""
        self.layer = -1
        """The layer that decided it, -1: none yet."""
        self.hidden_below = -1
        """Layers below this one have no say on it and what is in it."""
        self.opaque_below = -1
        """Layers below this one have no say on what is in it."""
        self.is_live = False
        """It holds something, so it is a folder even if no layer describes it."""
        self.used_at = -1
        """The lowest layer that went through it."""
        self.used_early = False
        """A layer went through it before describing it, so a link of a lower layer would have led elsewhere."""
        self.nondir_at = -1
        """A layer had something other than a folder here, hidden by a folder above."""


class Merger:
    """Merges layers. Call `merge_layer` from the top layer down, then `finish`.

    Args:
        sink: Where the tree goes.
        tally: Counts the folders that names imply.
    """

    def __init__(self, sink: EntrySink, *, tally: Tally) -> None:
        self._sink = sink
        self._tally = tally
        self._root = _Node()
        self._root.is_live = True
        self._links: list[Entry] = []
        self._layer = 0
        self._name = ""
        self._parents: dict[bytes, _Node | None] = {}
        """Parents that were already walked to for the current layer; None: hidden from it."""
        self._root_entry: Entry | None = None

    @property
    def root(self) -> Entry | None:
        """The entry that describes the root folder: of the top layer that has one."""
        return self._root_entry

    def merge_layer(self, source: EntrySource, *, index: int, name: str) -> None:
        """Merge one layer under those before.

        Args:
            source: The layer.
            index: Its number; lower ones come later.
            name: Its digest, for errors.

        Raises:
            OutOfOrder: The layers cannot be merged in this order.
            LayerRefused: An entry cannot be.
        """
        self._layer, self._name = index, name
        self._parents = {}
        root_seen = False
        for entry in source.entries():
            if not entry.name:
                if root_seen or self._root_entry is None:
                    self._root_entry, root_seen = entry, True
                continue
            parent_name, _, base = entry.name.rpartition(b"/")
            if WHITEOUT in entry.name and (meaning := meaning_of(entry.name, layer=name)) is not Meaning.ENTRY:
                if meaning is Meaning.REMOVAL:
                    self._take_away(parent_name, base, entry)
                continue
            try:
                parent = self._parents[parent_name]
            except KeyError:
                parent = self._parents[parent_name] = self._walk(parent_name, entry, live=True)
            if parent is not None:
                self._decide(parent, base, entry, source)

    def finish(self) -> None:
        """Write what had to wait: hard links, then folders. The root is not among them, see `root`."""
        for link in self._links:
            self._sink.add(link)
        self._write_folders()

    def _walk(self, path: bytes, entry: Entry, *, live: bool) -> _Node | None:
        """Return the node of a folder that the current layer goes through, or None when it is hidden from it."""
        layer = self._layer
        node = self._root
        for part in path.split(b"/") if path else ():
            if layer < node.opaque_below:
                return None
            children = node.children
            if children is None:
                children = node.children = {}
            child = children.get(part)
            if child is None:
                child = children[part] = _Node()
                self._tally.count_implied(self._name, entry)
            elif layer < child.hidden_below:
                return None
            elif (child.layer == layer and child.entry is None) or child.nondir_at == layer:
                raise OutOfOrder
            child.used_at = layer
            if live:
                child.is_live = True
            node = child
        return None if layer < node.opaque_below else node

    def _take_away(self, parent_name: bytes, base: bytes, entry: Entry) -> None:
        parent = self._walk(parent_name, entry, live=False)
        if parent is None:
            return
        if base == OPAQUE:
            if parent_name in self._parents:
                raise OutOfOrder
            parent.opaque_below = max(parent.opaque_below, self._layer)
            return
        node = self._child(parent, base[len(WHITEOUT) :])
        if node.used_at == self._layer:
            # What is in it came first, and may have gone through a link of a lower layer.
            raise OutOfOrder
        node.hidden_below = max(node.hidden_below, self._layer)

    @staticmethod
    def _child(parent: _Node, base: bytes) -> _Node:
        if parent.children is None:
            parent.children = {}
        node = parent.children.get(base)
        if node is None:
            node = parent.children[base] = _Node()
        return node

    def _decide(self, parent: _Node, base: bytes, entry: Entry, source: EntrySource) -> None:
        layer = self._layer
        node = self._child(parent, base)
        if layer < node.hidden_below:
            return
        if entry.kind is EntryKind.DIRECTORY:
            self._decide_folder(node, entry)
            return
        if node.layer >= 0 or node.used_at >= 0:
            self._hide_under_folder(node)
            return
        node.layer = node.hidden_below = layer
        if entry.kind is EntryKind.HARDLINK:
            self._check_link(entry)
            self._links.append(entry)
        elif entry.kind is EntryKind.FILE:
            self._sink.add(entry, source.content())
        else:
            self._sink.add(entry)

    def _decide_folder(self, node: _Node, entry: Entry) -> None:
        if node.layer == self._layer:
            if node.entry is None:
                raise OutOfOrder
        elif node.layer >= 0:
            return
        elif node.used_at == self._layer:
            node.used_early = True
        node.layer = self._layer
        node.entry = entry

    def _hide_under_folder(self, node: _Node) -> None:
        # A folder of an upper layer replaces this, and with it goes whatever layers further below have here.
        layer = self._layer
        if node.entry is None or node.used_early or layer in (node.layer, node.used_at):
            raise OutOfOrder
        node.hidden_below = max(node.hidden_below, layer)
        node.nondir_at = layer

    def _check_link(self, entry: Entry) -> None:
        node: _Node | None = self._root
        for part in entry.link.split(b"/"):
            node = node.children.get(part) if node is not None and node.children is not None else None
        if node is None or node.layer != self._layer or node.entry is not None or entry.link == entry.name:
            raise OutOfOrder

    def _write_folders(self) -> None:
        # A stack, not recursion: a path may have two thousand parts.
        stack: list[tuple[bytes, _Node]] = [(b"", self._root)]
        while stack:
            path, node = stack.pop()
            if node.entry is not None:
                self._sink.add(node.entry)
            elif node.layer < 0 and node.is_live and path:
                self._sink.add(implied_folder(path))
            for base, child in (node.children or {}).items():
                if child.entry is not None or child.children is not None or child.is_live:
                    stack.append((path + b"/" + base if path else base, child))


def implied_folder(path: bytes) -> Entry:
    """Return the entry of a folder that no layer describes."""
    return Entry(name=path, kind=EntryKind.DIRECTORY, mode=IMPLIED_MODE)


def renamed(entry: Entry, name: bytes) -> Entry:
    """Return an entry under another name."""
    return entry if entry.name == name else replace(entry, name=name)


class Meaning(Enum):
    """What a name in a layer is there for."""

    ENTRY = "entry"
    REMOVAL = "removal"
    NOTHING = "nothing"
    """A name that aufs kept for itself."""


def meaning_of(name: bytes, *, layer: str) -> Meaning:
    """Tell what a name that holds ``.wh.`` somewhere is there for.

    Raises:
        LayerRefused: It removes nothing that has a name, or lies in a removal.
    """
    *folders, base = name.split(b"/")
    for folder in folders:
        if folder.startswith(AUFS):
            return Meaning.NOTHING
        if folder.startswith(WHITEOUT):
            raise LayerRefused(layer, shown(name), "it lies in a folder whose name marks a removal")
    if not base.startswith(WHITEOUT):
        return Meaning.ENTRY
    if base == OPAQUE:
        return Meaning.REMOVAL
    if base.startswith(AUFS):
        return Meaning.NOTHING
    if base[len(WHITEOUT) :] in (b"", b".", b".."):
        raise LayerRefused(layer, shown(name), "it removes nothing that has a name")
    return Meaning.REMOVAL
