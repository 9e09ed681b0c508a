"""One entry of a layer: a name with what it stands for, as the tar stream has it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

WHITEOUT = b".wh."
"""Start of a base name that takes a name away from the layers below (OCI image specification, "Whiteouts")."""
OPAQUE = b".wh..wh..opq"
"""Base name that takes everything in its folder away from the layers below."""
AUFS = b".wh..wh."
"""Start of the names that the aufs storage driver kept for itself; they are no part of the image."""


class EntryKind(Enum):
    """What an entry makes."""

    FILE = "file"
    DIRECTORY = "folder"
    SYMLINK = "symbolic link"
    HARDLINK = "hard link"
    CHARACTER = "character device"
    BLOCK = "block device"
    FIFO = "FIFO"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One entry of a layer."""

    name: bytes
    """Path below the root without a leading, trailing or doubled slash, ``.`` or ``..``; empty is the root itself."""
    kind: EntryKind
    mode: int
    """Permission bits with set-uid, set-gid and sticky."""
    uid: int = 0
    gid: int = 0
    mtime_s: int = 0
    """Seconds since the epoch; fractions are dropped, squashfs cannot hold them."""
    size_bytes: int = 0
    """Of a file as programs see it, holes included."""
    stored_bytes: int = 0
    """What the stream holds of it."""
    link: bytes = b""
    """Of a symbolic link: its text. Of a hard link: the name that it is another name for, in the form of ``name``."""
    device: tuple[int, int] = (0, 0)
    """Major and minor number."""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    """Extended attributes, sorted by name."""
    segments: tuple[tuple[int, int], ...] | None = None
    """Of a sparse file: offset and length of each piece of data in ascending order; the rest is holes."""


def shown(name: bytes) -> str:
    """Return a name for an error: what is not printable is escaped, what is too long is cut in the middle."""
    text = name.decode("utf-8", "backslashreplace")
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= 200 else f"{text[:120]}…{text[-60:]}"
