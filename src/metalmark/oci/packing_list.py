"""Which files go into a packed image and under which names: collected, checked and sorted."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from metalmark.model import InputError, NoPermission

_WHITEOUT = ".wh."
_KEPT_XATTRS = ("user.", "security.capability")


@dataclass(frozen=True, kw_only=True)
class PackSource:
    """One file or folder, and where in the image it goes."""

    path: Path
    target: str = ""
    """Absolute path in the image; empty: a folder's content goes to ``/``, a file to ``/NAME``."""

    @classmethod
    def parse(cls, text: str, *, field: str = "DIR|FILE") -> PackSource:
        """Read ``PATH`` or ``PATH:TARGET``; a path that exists as it stands is taken whole.

        Raises:
            InputError: There is no such path, or the target is not absolute.
        """
        if os.path.lexists(text):
            return cls(path=Path(text))
        path, colon, target = text.rpartition(":")
        if not colon or not os.path.lexists(path):
            raise InputError(field, text, "there is no such file or folder", hint="write PATH or PATH:/TARGET")
        if not target.startswith("/") or ".." in target.split("/"):
            raise InputError(
                field, text, f"{target!r} is not an absolute path without ..", hint=f"write {path}:/{target}"
            )
        return cls(path=Path(path), target=target)


@dataclass(frozen=True, kw_only=True)
class PackEntry:
    """One entry of the layer."""

    name: bytes
    """Path in the image without a leading slash."""
    path: Path | None
    """Where it is on this machine; None for a folder that exists only because something is in it."""
    mode: int
    size_bytes: int
    link: bytes | None = None
    """Target of a symbolic link."""
    inode: tuple[int, int] | None = None
    """Set for a regular file with several names."""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[str, bytes], ...] = ()


def list_entries(sources: tuple[PackSource, ...]) -> list[PackEntry]:
    """Return everything below the sources, sorted by name; a later source replaces what an earlier one put there.

    Raises:
        InputError: A file that cannot be in a layer.
        NoPermission: A file cannot be read.
    """
    found: dict[bytes, PackEntry] = {}
    for source in sources:
        target = source.target.strip("/")
        if not source.path.is_dir() or source.path.is_symlink():
            inside = source.target.endswith("/") or not target
            name = posixpath.join(target, source.path.name) if inside else target
            _add(found, _entry(source.path, os.fsencode(posixpath.normpath(name))))
            continue
        base = os.fsencode(posixpath.normpath(target)) if target else b""
        if base:
            _add(found, _entry(source.path, base))
        for path, relative in _walk(source.path):
            _add(found, _entry(path, posixpath.join(base, relative)))
    for path_in_image in list(found):
        _add_parents(found, path_in_image)
    return [found[key] for key in sorted(found)]


def _walk(top: Path) -> Iterator[tuple[Path, bytes]]:
    def failed(error: OSError) -> None:
        raise NoPermission(f"{error.filename} cannot be read", why=error.strerror or "") from error

    root = os.fsencode(top)
    for folder, folders, files in os.walk(root, onerror=failed):
        for name in (*folders, *files):
            path = os.path.join(folder, name)  # noqa: PTH118 - pathlib has no paths of bytes
            yield Path(os.fsdecode(path)), os.path.relpath(path, root)


def _add(found: dict[bytes, PackEntry], entry: PackEntry) -> None:
    known = found.get(entry.name)
    if known is not None and stat.S_ISDIR(known.mode) != stat.S_ISDIR(entry.mode):
        for name in [name for name in found if name.startswith(entry.name + b"/")]:
            del found[name]
    found[entry.name] = entry


def _add_parents(found: dict[bytes, PackEntry], name: bytes) -> None:
    parent = posixpath.dirname(name)
    while parent:
        known = found.get(parent)
        if known is not None and not stat.S_ISDIR(known.mode):
            raise InputError(
                "DIR|FILE", os.fsdecode(name), f"/{os.fsdecode(parent)} is put there as something that is no folder"
            )
        found.setdefault(parent, PackEntry(name=parent, path=None, mode=stat.S_IFDIR | 0o755, size_bytes=0))
        parent = posixpath.dirname(parent)


def _entry(path: Path, name: bytes) -> PackEntry:
    if posixpath.basename(name).startswith(_WHITEOUT.encode()):
        raise InputError(
            "DIR|FILE", str(path), f"a name that starts with {_WHITEOUT} deletes a file in an image", hint="rename it"
        )
    status = path.lstat()
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFSOCK:
        raise InputError(
            "DIR|FILE", str(path), "a socket cannot be in an image", hint="remove it, or pack another folder"
        )
    if kind == stat.S_IFREG and not os.access(path, os.R_OK):
        raise NoPermission(f"{path} may not be read", hint="run as a user who may")
    is_device = kind in (stat.S_IFBLK, stat.S_IFCHR)
    return PackEntry(
        name=name,
        path=path,
        mode=status.st_mode,
        size_bytes=status.st_size if kind == stat.S_IFREG else 0,
        link=os.fsencode(path.readlink()) if kind == stat.S_IFLNK else None,
        inode=(status.st_dev, status.st_ino) if kind == stat.S_IFREG and status.st_nlink > 1 else None,
        device=(os.major(status.st_rdev), os.minor(status.st_rdev)) if is_device else (0, 0),
        xattrs=_xattrs(path) if kind in (stat.S_IFREG, stat.S_IFDIR) else (),
    )


def _xattrs(path: Path) -> tuple[tuple[str, bytes], ...]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:  # a file system without them
        return ()
    kept = sorted(name for name in names if name.startswith(_KEPT_XATTRS))
    return tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in kept)
