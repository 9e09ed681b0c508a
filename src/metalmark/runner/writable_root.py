"""The private, writable ext4 root of one box (``--rootfs ext4``), made from the cached one before the clock starts."""

from __future__ import annotations

import os
from pathlib import Path

from metalmark.model import BoxTooSmall, ToolMissing, format_bytes
from metalmark.system import clone, in_thread, no_space_told, run

_RESIZE_S = 120.0


async def clone_root(master: Path, folder: Path, *, size_bytes: int) -> Path:
    """Clone a cached ext4 image into a folder and grow it to a size.

    Raises:
        BoxTooSmall: The image alone needs more than that.
        NoSpace: The file system is full.
        ToolMissing: resize2fs is not installed or fails.
    """
    root = folder / "root.ext4"
    await in_thread(clone, master, root)
    root.chmod(0o600)
    present = root.stat().st_size
    if present > size_bytes:
        raise BoxTooSmall(
            f"the image's files need a disk of {format_bytes(present)}, and --disk is {format_bytes(size_bytes)}",
            hint=f"use --disk {-(-present // 2**20)}M or more, or --rootfs overlay",
        )
    if present < size_bytes:
        with no_space_told(root):
            os.truncate(root, size_bytes)
        # -f: the image was made, not used, since it was last checked.
        done = await run(["resize2fs", "-f", str(root)], timeout_s=_RESIZE_S)
        if done.returncode != 0:
            raise ToolMissing(f"resize2fs failed: {done.error_text}", hint="reinstall e2fsprogs")
    return root
