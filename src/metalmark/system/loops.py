"""Loop devices: files that the kernel shows as disks.

Every device is made with "auto-clear": it goes away by itself when its last user does, be that a mount or the
descriptor that made it. So nothing has to be undone after a crash, as long as no mount outlives its maker.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from metalmark.model import NoPermission, StableError
from metalmark.system.files import no_space_told

# linux/loop.h
_LOOP_CLR_FD = 0x4C01
_LOOP_CONFIGURE = 0x4C0A
_LOOP_CTL_GET_FREE = 0x4C82
_READ_ONLY = 1
_AUTOCLEAR = 4
_DIRECT_IO = 16
_CONFIG = struct.Struct("=II QQQQQ IIII 64s64s32s QQ 64x")
"""``struct loop_config``: descriptor, block size, ``struct loop_info64``, eight reserved words."""
_TRIES = 64


@dataclass(frozen=True, kw_only=True)
class Loop:
    """A loop device that is in use."""

    device: Path
    backing_file: str
    """Path of the file; `` (deleted)`` is added by the kernel when it has been removed."""


@contextmanager
def attached(file: Path, *, read_only: bool, direct_io: bool = False) -> Iterator[Path]:
    """Show a file as a disk and yield the device, for as long as the context or any mount of it lasts.

    Args:
        file: The file.
        read_only: Refuse writes.
        direct_io: Go past the host's page cache where the file's file system can.

    Raises:
        NoPermission: The user may not.
        StableError: There are no loop devices here.
    """
    direct_io = direct_io and takes_direct_io(file)
    descriptor = os.open(file, os.O_RDONLY if read_only else os.O_RDWR)
    try:
        device, holder = _configure_free(descriptor, file, read_only=read_only, direct_io=direct_io)
    finally:
        os.close(descriptor)
    try:
        yield device
    finally:
        os.close(holder)


def takes_direct_io(file: Path) -> bool:
    """Whether a file can be read past the page cache, found out by doing it.

    A stacked file system says yes for one below it that then answers every request with an error.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_DIRECT)
    except OSError:
        return False
    try:
        with mmap.mmap(-1, mmap.PAGESIZE) as page:
            return os.preadv(descriptor, [page], 0) >= 0
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _configure_free(descriptor: int, file: Path, *, read_only: bool, direct_io: bool) -> tuple[Path, int]:
    for _ in range(_TRIES):
        device = _free_device()
        try:
            holder = os.open(device, os.O_RDONLY if read_only else os.O_RDWR)
        except PermissionError as error:
            raise _not_permitted(device) from error
        try:
            if _configure(holder, descriptor, file, read_only=read_only, direct_io=direct_io):
                return device, holder
        except BaseException:
            os.close(holder)
            raise
        os.close(holder)
    raise StableError(f"no free loop device after {_TRIES} tries", why="other programs take them", hint="losetup -l")


def _configure(holder: int, descriptor: int, file: Path, *, read_only: bool, direct_io: bool) -> bool:
    flags = _AUTOCLEAR | (_READ_ONLY if read_only else 0)
    name = os.fsencode(file)[-63:]
    for wanted in (flags | _DIRECT_IO, flags) if direct_io else (flags,):
        config = _CONFIG.pack(descriptor, 0, 0, 0, 0, 0, 0, 0, 0, 0, wanted, name, b"", b"", 0, 0)
        try:
            with no_space_told(file):
                fcntl.ioctl(holder, _LOOP_CONFIGURE, config)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno == 16:  # EBUSY: another process was faster with this device
                return False
            if wanted & _DIRECT_IO and error.errno == 22:  # EINVAL: this file system has no direct I/O
                continue
            raise
        return True
    return False


def _free_device() -> Path:
    control = Path("/dev/loop-control")
    try:
        handle = os.open(control, os.O_RDWR)
    except FileNotFoundError as error:
        raise StableError(
            f"{control} does not exist", why="a file is mounted through it", hint="modprobe loop"
        ) from error
    except PermissionError as error:
        raise _not_permitted(control) from error
    try:
        number = fcntl.ioctl(handle, _LOOP_CTL_GET_FREE)
    finally:
        os.close(handle)
    device = Path(f"/dev/loop{number}")
    if not device.exists():
        # Without devtmpfs, in a container say, the kernel makes the device and nobody makes its node.
        with suppress(FileExistsError):  # another box was faster
            os.mknod(device, 0o60600, os.makedev(7, number))
    return device


def _not_permitted(path: Path) -> NoPermission:
    return NoPermission(f"{path} cannot be opened", why="a disk image is mounted through it", hint="run as root")


def read_loops(root: Path = Path("/")) -> tuple[Loop, ...]:
    """Return the loop devices that are in use on this machine."""
    found = []
    for folder in sorted((root / "sys/block").glob("loop*")):
        try:
            name = os.fsdecode((folder / "loop/backing_file").read_bytes()).rstrip("\n")
        except OSError:
            continue
        found.append(Loop(device=Path("/dev") / folder.name, backing_file=name))
    return tuple(found)


def detach(device: Path) -> None:
    """Ask a loop device to let go of its file, now or when its last user is gone.

    Raises:
        OSError: The kernel refused for another reason than that it holds no file.
    """
    handle = os.open(device, os.O_RDONLY)
    try:
        fcntl.ioctl(handle, _LOOP_CLR_FD)
    except OSError as error:
        if error.errno != 6:  # ENXIO: it has none any more
            raise
    finally:
        os.close(handle)
