"""Files that a VMM gets as open descriptors, so that it needs no right to the folders they are in."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Self

from metalmark.model import NoPermission, StableError
from metalmark.system import no_space_told

_READABLE = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH


class VmmFiles:
    """Open files on their way to a VMM. A context manager; closed here once the VMM has inherited them."""

    def __init__(self) -> None:
        self.descriptors: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors.clear()

    def disk(self, path: Path, *, read_only: bool) -> int:
        """Open a disk image and return its descriptor.

        Raises:
            NoPermission, StableError
        """
        return self._open(path, os.O_RDONLY if read_only else os.O_RDWR)

    def log(self, path: Path) -> int:
        """Make a file that is written to, and return its descriptor.

        Raises:
            NoPermission, NoSpace, StableError
        """
        return self._open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def named(self, path: Path) -> Path:
        """Open a file that the VMM opens once more by a name, and return that name.

        The file becomes readable for everybody who has a descriptor of it; the folder that it is in does not.

        Raises:
            NoPermission, StableError
        """
        descriptor = self._open(path, os.O_RDONLY)
        status = os.fstat(descriptor)
        if status.st_uid == os.geteuid() and status.st_mode & _READABLE != _READABLE:
            os.fchmod(descriptor, stat.S_IMODE(status.st_mode) | _READABLE)
        return Path(f"/proc/self/fd/{descriptor}")

    def _open(self, path: Path, flags: int) -> int:
        try:
            with no_space_told(path):
                descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
        except PermissionError as error:
            raise NoPermission(f"{path} cannot be opened", why="the virtual machine needs it") from error
        except OSError as error:
            raise StableError(f"{path} cannot be opened", why=error.strerror or str(error)) from error
        self.descriptors.append(descriptor)
        return descriptor
