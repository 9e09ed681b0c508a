"""Layers merged exactly as extracting them one over the other would, for those that `merge` cannot take in one pass.

First all names are read, bottom layer first, into a tree in which links are followed as they were at that moment;
then the layers are read once more for the content of what is left. Nothing is ever outside the tree: a link that leads
upwards ends at the root, as after chroot(2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from metalmark.model import LayerRefused
from metalmark.oci.bounds import Tally
from metalmark.oci.entry import OPAQUE, WHITEOUT, Entry, EntryKind, shown
from metalmark.oci.merge import EntrySink, EntrySource, Meaning, implied_folder, meaning_of, renamed

_MAX_LINKS = 40
"""Symbolic links on the way to one name, as in Linux."""


@dataclass(slots=True, eq=False)
class _Leaf:
    """Anything but a folder. Hard links to it are the same object."""

    entry: Entry
    layer: int
    """The layer that made it."""
    index: int
    """Its place among the entries of that layer."""


@dataclass(slots=True, eq=False)
class _Folder:
    entry: Entry | None = None
    """None: no layer describes it."""
    described_at: int = -1
    """The layer that ``entry`` is from."""
    children: dict[bytes, _Leaf | _Folder] = field(default_factory=dict)
    touched: dict[bytes, int] = field(default_factory=dict)
    """The last layer that put each child there, or something into it."""


class MergePlan:
    """The tree that the layers make. Call `add_layer` from the bottom layer up, then `emit_layer` in any order.

    Args:
        names: Digests of the layers, bottom first, for errors.
        tally: Counts the folders that names imply.
    """

    def __init__(self, names: tuple[str, ...], *, tally: Tally) -> None:
        self._names = names
        self._tally = tally
        self._root = _Folder()
        self._layer = 0
        self._wanted: dict[int, dict[int, bytes]] | None = None
        self._links: list[Entry] = []

    @property
    def root(self) -> Entry | None:
        """The entry that describes the root folder: of the top layer that has one."""
        return self._root.entry

    def add_layer(self, source: EntrySource, *, index: int) -> None:
        """Lay one layer over those before.

        Raises:
            LayerRefused: An entry cannot be: it lies in a file, links to nothing, or goes round in circles.
        """
        self._layer = index
        name = self._names[index]
        for place, entry in enumerate(source.entries()):
            if not entry.name:
                self._root.entry = entry
                continue
            parent_name, _, base = entry.name.rpartition(b"/")
            meaning = meaning_of(entry.name, layer=name) if WHITEOUT in entry.name else Meaning.ENTRY
            if meaning is Meaning.ENTRY:
                self._put(parent_name, base, entry, place)
            elif meaning is Meaning.REMOVAL:
                self._take_away(parent_name, base, entry)

    def wanted(self) -> dict[int, dict[int, bytes]]:
        """Return, for each layer that is needed once more, the places of the entries that show and under which name."""
        if self._wanted is None:
            self._wanted = {}
            first: dict[int, bytes] = {}
            for path, node in self._walk():
                if isinstance(node, _Folder):
                    continue
                if id(node) in first:
                    self._links.append(
                        Entry(name=path, kind=EntryKind.HARDLINK, mode=node.entry.mode, link=first[id(node)])
                    )
                else:
                    first[id(node)] = path
                    self._wanted.setdefault(node.layer, {})[node.index] = path
        return self._wanted

    def emit_layer(self, source: EntrySource, sink: EntrySink, *, index: int) -> None:
        """Read a layer again and write what of it shows."""
        wanted = self.wanted().get(index, {})
        for place, entry in enumerate(source.entries()):
            path = wanted.get(place)
            if path is not None:
                sink.add(renamed(entry, path), source.content() if entry.kind is EntryKind.FILE else ())

    def finish(self, sink: EntrySink) -> None:
        """Write hard links and folders. The root is not among them, see `root`."""
        self.wanted()
        for link in self._links:
            sink.add(link)
        for path, node in self._walk():
            if isinstance(node, _Folder):
                sink.add(implied_folder(path) if node.entry is None else renamed(node.entry, path))

    def _walk(self) -> Iterator[tuple[bytes, _Leaf | _Folder]]:
        stack: list[tuple[bytes, _Folder]] = [(b"", self._root)]
        while stack:
            path, folder = stack.pop()
            for base, child in folder.children.items():
                name = path + b"/" + base if path else base
                yield name, child
                if isinstance(child, _Folder):
                    stack.append((name, child))

    def _refused(self, entry: Entry, why: str) -> LayerRefused:
        return LayerRefused(self._names[self._layer], shown(entry.name), why)

    def _put(self, parent_name: bytes, base: bytes, entry: Entry, place: int) -> None:
        parent = self._enter(parent_name, entry, make=True)
        assert parent is not None
        existing = parent.children.get(base)
        if entry.kind is EntryKind.DIRECTORY and isinstance(existing, _Folder):
            existing.entry, existing.described_at = entry, self._layer
        elif entry.kind is EntryKind.DIRECTORY:
            parent.children[base] = _Folder(entry=entry, described_at=self._layer)
        elif entry.kind is EntryKind.HARDLINK:
            parent.children[base] = self._linked(entry)
        else:
            parent.children[base] = _Leaf(entry=entry, layer=self._layer, index=place)
        parent.touched[base] = self._layer

    def _linked(self, entry: Entry) -> _Leaf:
        parent_name, _, base = entry.link.rpartition(b"/")
        parent = self._enter(parent_name, entry, make=False)
        target = parent.children.get(base) if parent is not None else None
        if target is None or entry.link == entry.name:
            raise self._refused(entry, f"it is a hard link to {shown(entry.link)!r}, which is not there")
        if isinstance(target, _Folder):
            raise self._refused(entry, f"it is a hard link to {shown(entry.link)!r}, which is a folder")
        return target

    def _enter(self, path: bytes, entry: Entry, *, make: bool) -> _Folder | None:
        """Return the folder that a path leads to, links followed; what is missing is made, or None is returned."""
        trail = [self._root]
        parts = path.split(b"/")[::-1] if path else []
        links = 0
        while parts:
            part = parts.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                # The root is its own parent.
                del trail[max(1, len(trail) - 1) :]
                continue
            child = trail[-1].children.get(part)
            if isinstance(child, _Leaf) and child.entry.kind is EntryKind.SYMLINK:
                links += 1
                if links > _MAX_LINKS:
                    raise self._refused(entry, "its folder goes through too many symbolic links")
                if child.entry.link.startswith(b"/"):
                    del trail[1:]
                parts += child.entry.link.split(b"/")[::-1]
                continue
            folder = self._step(trail[-1], part, child, entry) if make else child
            if not isinstance(folder, _Folder):
                return None
            trail.append(folder)
        return trail[-1]

    def _step(self, folder: _Folder, part: bytes, child: _Leaf | _Folder | None, entry: Entry) -> _Folder:
        if isinstance(child, _Leaf):
            raise self._refused(entry, f"it lies in {shown(part)!r}, which is a {child.entry.kind.value}")
        if child is None:
            child = folder.children[part] = _Folder()
            self._tally.count_implied(self._names[self._layer], entry)
        folder.touched[part] = self._layer
        return child

    def _take_away(self, parent_name: bytes, base: bytes, entry: Entry) -> None:
        parent = self._enter(parent_name, entry, make=False)
        if parent is None:
            return
        if base == OPAQUE:
            for name in list(parent.children):
                self._remove_below(parent, name)
        elif base[len(WHITEOUT) :] in parent.children:
            self._remove_below(parent, base[len(WHITEOUT) :])

    def _remove_below(self, parent: _Folder, base: bytes) -> None:
        """Take away what layers below the current one have at a name; what the current one put there stays."""
        stack = [(parent, base)]
        while stack:
            folder, name = stack.pop()
            if folder.touched.get(name) != self._layer:
                del folder.children[name]
                folder.touched.pop(name, None)
                continue
            child = folder.children[name]
            if isinstance(child, _Folder):
                if child.described_at != self._layer:
                    child.entry, child.described_at = None, -1
                stack += [(child, inner) for inner in child.children]
