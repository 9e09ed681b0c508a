"""The private folder that one run keeps its output in; what dead runs left is cleared away."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from metalmark.system import ensure_private, locked, no_space_told, try_locked

_LOCK = "in-use"


@contextmanager
def spool_folder(parent: Path) -> Iterator[Path]:
    """Make a folder below ``parent`` for as long as the context lasts.

    The lock in it is the kernel's, so that a killed run's folder is known as such by the next one.

    Raises:
        NoSpace: The file system is full.
        NoPermission: ``parent`` cannot be written.
    """
    ensure_private(parent)
    _clear_dead(parent)
    folder = parent / secrets.token_hex(8)
    with no_space_told(folder):
        folder.mkdir(mode=0o700)
    try:
        with locked(folder / _LOCK):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _clear_dead(parent: Path) -> None:
    for folder in parent.iterdir():
        if not folder.is_dir():
            continue
        if not (folder / _LOCK).exists():
            # Just being made by another process, or being removed: the next run looks again.
            continue
        with try_locked(folder / _LOCK) as dead:
            if dead:
                shutil.rmtree(folder, ignore_errors=True)
