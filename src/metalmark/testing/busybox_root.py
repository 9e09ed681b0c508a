"""A root file system made of Debian's static busybox, for tests that need a small real one."""

from __future__ import annotations

import shutil
from pathlib import Path

from metalmark.system import run

BUSYBOX = Path("/bin/busybox")
_USERS = "root:x:0:0:root:/root:/bin/sh\nworker:x:1234:1234:worker:/home/worker:/bin/sh\n"
_GROUPS = "root:x:0:\nworker:x:1234:\nextra:x:4321:worker\n"


async def busybox_tree(folder: Path) -> Path:
    """Fill a folder with busybox, its applets as links, a user ``worker`` and a few folders; and return it.

    Raises:
        FileNotFoundError: busybox-static is not installed.
    """
    (folder / "bin").mkdir(parents=True)
    shutil.copy2(BUSYBOX, folder / "bin/busybox")
    listed = await run([str(BUSYBOX), "--list"], timeout_s=10)
    for name in listed.stdout.decode("ascii").split():
        if name != "busybox":
            (folder / "bin" / name).symlink_to("busybox")
    for name in ("dev", "etc", "home/worker", "proc", "root", "sys", "work"):
        (folder / name).mkdir(parents=True)
    (folder / "etc/passwd").write_text(_USERS, encoding="ascii")
    (folder / "etc/group").write_text(_GROUPS, encoding="ascii")
    return folder


async def busybox_squashfs(target: Path, workspace: Path) -> Path:
    """Make a squashfs image of `busybox_tree`, and return its path."""
    tree = await busybox_tree(workspace / "tree")
    argv = ["mksquashfs", str(tree), str(target), "-noappend", "-quiet", "-no-progress", "-all-root"]
    done = await run([*argv, "-noI", "-noD", "-noF", "-noX"], timeout_s=60)
    if done.returncode != 0:
        raise RuntimeError(done.error_text)
    return target


async def busybox_ext4(target: Path, workspace: Path, *, size_bytes: int) -> Path:
    """Make a writable ext4 image of `busybox_tree`, and return its path."""
    tree = await busybox_tree(workspace / "tree-ext4")
    with target.open("xb") as stream:
        stream.truncate(size_bytes)
    done = await run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", str(tree), str(target)], timeout_s=60)
    if done.returncode != 0:
        raise RuntimeError(done.error_text)
    return target
