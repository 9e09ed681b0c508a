"""The scratch disk of a box: an empty ext4 file system in a sparse file."""

from __future__ import annotations

from pathlib import Path

from metalmark.model import MIB, BoxTooSmall, NoSpace, ToolMissing, format_bytes
from metalmark.system import find_tool, free_bytes, run

SCRATCH_FILE = "scratch.ext4"
MIN_BYTES = 8 * MIB
"""Below this an ext4 with a journal is mostly journal."""
_OPTIONS = "lazy_itable_init=0,lazy_journal_init=1,nodiscard,assume_storage_prezeroed=1"
"""A sparse file reads as zeros, so nothing needs zeroing, neither now nor by a kernel thread during the measurement."""
_TIMEOUT_S = 60.0


async def make_scratch(folder: Path, size_bytes: int, *, name: str = SCRATCH_FILE) -> Path:
    """Make an empty file system in a sparse file and return the file's path.

    The file may grow to its size while the box runs; whether the host's disk has that much room is looked up now.

    Args:
        folder: Where to make it.
        size_bytes: Size of the disk; the file system's own structures take a few per cent of it.
        name: Name of the file; it must not exist.

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
    with path.open("xb") as stream:
        stream.truncate(size_bytes)
    try:
        await _make_file_system(path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


async def _make_file_system(path: Path) -> None:
    tool = find_tool("mke2fs", hint="apt-get install e2fsprogs")
    # -m 0: the blocks that mke2fs would reserve for root are the benchmark's too.
    done = await run([tool, "-q", "-F", "-t", "ext4", "-m", "0", "-E", _OPTIONS, str(path)], timeout_s=_TIMEOUT_S)
    if done.returncode != 0:
        raise ToolMissing("mke2fs failed", why=done.error_text or f"it ended with {done.returncode}")
