"""Bounds on what layers may unpack to, so that no image can fill the memory or the disk, or take for ever."""

from __future__ import annotations

from dataclasses import dataclass

from metalmark.model import GIB, MIB, LayerRefused, format_bytes
from metalmark.oci.entry import Entry, shown

NAME_BYTES = 255
"""Longest file name (NAME_MAX)."""
PATH_BYTES = 4095
"""Longest path and longest text of a symbolic link (PATH_MAX without its final NUL)."""
XATTR_BYTES = 65536
"""Largest value of an extended attribute (XATTR_SIZE_MAX)."""
HEADER_BYTES = 1 * MIB
"""Largest extended header (PAX records, GNU long names) that is read into memory."""
SEGMENTS = 65536
"""Most pieces of data in one sparse file."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Limits on one image; the ratio of unpacked to packed bytes is `UnpackLimits`'s."""

    entries: int = 1_000_000
    """Entries of all layers together, with the folders that they imply."""
    content_bytes: int = 64 * GIB
    """Content of all files of all layers together."""
    hole_bytes: int = 4 * GIB
    """Holes of all sparse files together: they take no space, but each of their zeros goes to mksquashfs."""
    xattr_bytes: int = 64 * MIB
    """Names and values of all extended attributes together, which are kept in memory."""
    owners: int = 65_535
    """Different user and group ids together: squashfs counts them in 16 bits."""


class Tally:
    """Counts what the layers of one image hold, against bounds.

    Args:
        bounds: The limits.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self.entries = 0
        self.content_bytes = 0
        self.hole_bytes = 0
        self.xattr_bytes = 0
        self._owners = {0}

    def count(self, layer: str, entry: Entry) -> None:
        """Add one entry.

        Raises:
            LayerRefused: A bound is passed.
        """
        bounds = self._bounds
        self.entries += 1
        if self.entries > bounds.entries:
            raise LayerRefused(layer, shown(entry.name), f"the image has more than {bounds.entries} entries")
        self._owners.add(entry.uid)
        self._owners.add(entry.gid)
        if len(self._owners) > bounds.owners:
            raise LayerRefused(layer, shown(entry.name), f"the image has more than {bounds.owners} different owners")
        if entry.stored_bytes:
            self.content_bytes += entry.stored_bytes
            if self.content_bytes > bounds.content_bytes:
                raise self._too_much(layer, entry, "its files", bounds.content_bytes)
        if entry.segments is not None:
            self.hole_bytes += entry.size_bytes - entry.stored_bytes
            if self.hole_bytes > bounds.hole_bytes:
                raise self._too_much(layer, entry, "the holes of its sparse files", bounds.hole_bytes)
        if entry.xattrs:
            self.xattr_bytes += sum(len(name) + len(value) for name, value in entry.xattrs)
            if self.xattr_bytes > bounds.xattr_bytes:
                raise self._too_much(layer, entry, "its extended attributes", bounds.xattr_bytes)

    def count_implied(self, layer: str, entry: Entry) -> None:
        """Add a folder that an entry lies in and that nothing describes so far.

        Raises:
            LayerRefused: A bound is passed.
        """
        self.entries += 1
        if self.entries > self._bounds.entries:
            raise LayerRefused(
                layer, shown(entry.name), f"the image has more than {self._bounds.entries} entries and implied folders"
            )

    @staticmethod
    def _too_much(layer: str, entry: Entry, what: str, limit: int) -> LayerRefused:
        return LayerRefused(
            layer, shown(entry.name), f"with this entry {what} come to more than {format_bytes(limit)} in the image"
        )
