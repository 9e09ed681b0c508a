"""The root file system of a box that has no kernel of its own, mounted in a private mount namespace.

Overlay: the squashfs base through a read-only loop device, the ext4 scratch through another, overlayfs over both.
Ext4: the private image through a loop device. Nothing of it is seen outside of the namespace, and all of it is gone
when the namespace is. Device nodes of the image do not work: every mount is ``nodev``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from metalmark.model import InputError, NoPermission, RootfsMode, StableError, UnsupportedImage
from metalmark.system import MountFlag, attached, monotonic_s, mount, read_loops, sleep_s

_GONE_S = 5.0


def mount_root(*, root: Path, mode: RootfsMode, scratch: Path | None, workspace: Path) -> Path:
    """Mount the root of a box and return where. Call it in a thread with a mount namespace of its own.

    Args:
        root: squashfs image, or private ext4 image.
        mode: Which of the two.
        scratch: The ext4 scratch that an overlay writes to.
        workspace: The box's folder; the folders to mount on are made there.

    Raises:
        InputError, NoPermission, StableError, UnsupportedImage
    """
    target = workspace / "root"
    target.mkdir(exist_ok=True)
    if mode is RootfsMode.EXT4:
        with _disk(root, "ext4", target, read_only=False):
            return target
    if scratch is None:
        raise InputError("scratch", None, "an overlay needs one")
    base, disk = workspace / "base", workspace / "scratch"
    for folder in (base, disk):
        folder.mkdir(exist_ok=True)
    with _disk(root, "squashfs", base, read_only=True), _disk(scratch, "ext4", disk, read_only=False):
        upper, work = disk / "upper", disk / "work"
        upper.mkdir()
        work.mkdir(mode=0o700)
        # The root folder's owner and mode are the upper one's.
        status = base.stat()
        os.chown(upper, status.st_uid, status.st_gid)
        upper.chmod(status.st_mode & 0o7777)
        _overlay(workspace, target)
    return target


@contextmanager
def _disk(file: Path, fs_type: str, target: Path, *, read_only: bool) -> Iterator[None]:
    flags = MountFlag.NO_DEV | (MountFlag.READ_ONLY if read_only else MountFlag.NONE)
    with attached(file, read_only=read_only, direct_io=not read_only) as device:
        try:
            mount(device, target, fs_type, flags=flags)
        except OSError as error:
            raise _explained(error, file, fs_type) from error
    # The mount holds the device from here on.
    yield


def _overlay(workspace: Path, target: Path) -> None:
    # Relative: a colon or comma in the workspace's path would be read as a separator.
    before = Path.cwd()
    os.chdir(workspace)
    try:
        data = "lowerdir=base,upperdir=scratch/upper,workdir=scratch/work"
        mount("overlay", target, "overlay", flags=MountFlag.NO_DEV, data=data)
    except OSError as error:
        raise _explained(error, workspace, "overlay") from error
    finally:
        os.chdir(before)


def _explained(error: OSError, file: Path, fs_type: str) -> Exception:
    if error.errno == errno.ENODEV:
        return StableError(
            f"this kernel does not know the file system {fs_type}",
            why="the root of a box is mounted with it",
            hint=f"modprobe {fs_type}",
        )
    if error.errno in (errno.EPERM, errno.EACCES):
        return NoPermission(f"{file} cannot be mounted", why="mounting needs CAP_SYS_ADMIN", hint="run as root")
    if error.errno in (errno.EINVAL, errno.EUCLEAN, errno.EBADMSG):
        return UnsupportedImage(f"{file} is no {fs_type} that this kernel can mount", why=error.strerror or "")
    return StableError(f"{file} cannot be mounted as {fs_type}", why=error.strerror or str(error))


async def loops_gone(*files: Path) -> bool:
    """Wait until no loop device has one of these files any more: their file systems are written back then.

    The kernel takes a namespace's mounts down after its last user has gone, not at the same moment.

    Returns:
        False: one is still there after five seconds.
    """
    names = {str(file) for file in files} | {f"{file} (deleted)" for file in files}
    deadline = monotonic_s() + _GONE_S
    while any(loop.backing_file in names for loop in read_loops()):
        if monotonic_s() > deadline:
            return False
        await sleep_s(0.002)
    return True
