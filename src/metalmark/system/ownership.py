"""Who could change what is at a path: its owner and mode, and those of every folder on the way to it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def open_to_others(path: Path) -> Path | None:
    """Return what of a path others than root and this user could change or replace; None when there is nothing.

    Links are followed, and both the folders that hold them and those that they lead to are looked at. What does not
    exist yet is left out. Blocking.

    Args:
        path: A file or folder; it need not exist.

    Raises:
        OSError: A part of it cannot be looked at.
    """
    target = path.resolve()
    if _is_open(target):
        return target
    for parent in dict.fromkeys((*path.absolute().parents, *target.parents)):
        if _is_open(parent, on_the_way=True):
            return parent
    return None


def _is_open(place: Path, *, on_the_way: bool = False) -> bool:
    try:
        status = place.stat()
    except FileNotFoundError:
        return False
    if status.st_uid not in (0, os.geteuid()):
        return True
    # In a folder like /tmp others can make names, but not take away those that are there.
    harmless = on_the_way and bool(status.st_mode & stat.S_ISVTX)
    return bool(status.st_mode & _OTHERS) and not harmless
