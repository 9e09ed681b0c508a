"""The scratch disk of a box: an empty ext4 file system in a sparse file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from metalmark.model import MIB, BoxTooSmall, NoSpace, ToolMissing, format_bytes
from metalmark.system import Folders, clone, ensure_private, find_tool, free_bytes, in_thread, run

SCRATCH_FILE = "scratch.ext4"
MIN_BYTES = 8 * MIB
"""Below this an ext4 with a journal is mostly journal."""
_OPTIONS = "lazy_itable_init=0,lazy_journal_init=1,nodiscard,assume_storage_prezeroed=1"
"""A sparse file reads as zeros, so nothing needs zeroing, neither now nor by a kernel thread during the measurement."""
_TIMEOUT_S = 60.0


def templates_folder(folders: Folders) -> Path:
    """Return the folder of empty scratch disks that boxes copy from."""
    return folders.cache / "scratch"


async def make_scratch(
    folder: Path, size_bytes: int, *, name: str = SCRATCH_FILE, templates: Path | None = None
) -> Path:
    """Make an empty file system in a sparse file and return the file's path.

    The file may grow to its size while the box runs; whether the host's disk has that much room is looked up now.

    Args:
        folder: Where to make it.
        size_bytes: Size of the disk; the file system's own structures take a few per cent of it.
        name: Name of the file; it must not exist.
        templates: Folder of empty file systems to copy from, one a size; what is missing there is made.

    Raises:
        BoxTooSmall: The size is under `MIN_BYTES`.
        NoSpace: The host's disk has less room than the size.
        ToolMissing: ``mke2fs`` is not installed, or fails.
    """
    if size_bytes < MIN_BYTES:
        raise BoxTooSmall(
            f"a disk of {format_bytes(size_bytes)}",
            why=f"the least is {format_bytes(MIN_BYTES)}",
            hint="give --disk a larger size",
        )
    room = free_bytes(folder)
    if room < size_bytes:
        raise NoSpace(
            f"{folder} has room for {format_bytes(room)}",
            why=f"the disk of a box may grow to {format_bytes(size_bytes)}",
            hint="free some with `metalmark image gc`, lower --disk, or set METALMARK_HOME to a larger file system",
        )
    path = folder / name
    if templates is None:
        await _make_empty(path, size_bytes)
    else:
        template = templates / f"empty-{size_bytes}.ext4"
        if not await in_thread(template.exists):
            await _make_template(template, size_bytes)
        # A few hundred KiB of data; the rest are holes.
        await in_thread(clone, template, path)
    return path


async def _make_template(template: Path, size_bytes: int) -> None:
    ensure_private(template.parent)
    partial = template.with_name(f".{template.name}.{os.urandom(4).hex()}.partial")
    await _make_empty(partial, size_bytes)
    # Two that make it at the same time make the same.
    partial.replace(template)


async def _make_empty(path: Path, size_bytes: int) -> None:
    with path.open("xb") as stream:
        stream.truncate(size_bytes)
    with _removed_on_error(path):
        await _make_file_system(path)


@contextmanager
def _removed_on_error(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


async def _make_file_system(path: Path) -> None:
    tool = find_tool("mke2fs", hint="apt-get install e2fsprogs")
    # -m 0: the blocks that mke2fs would reserve for root are the benchmark's too.
    done = await run([tool, "-q", "-F", "-t", "ext4", "-m", "0", "-E", _OPTIONS, str(path)], timeout_s=_TIMEOUT_S)
    if done.returncode != 0:
        raise ToolMissing("mke2fs failed", why=done.error_text or f"it ended with {done.returncode}")
