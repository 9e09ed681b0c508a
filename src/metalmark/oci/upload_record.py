"""Where uploads to registries are, so that the next process goes on with what this one could not finish."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from metalmark.oci.manifest import Descriptor
from metalmark.oci.reference import Reference

_MAX_BYTES = 64 * 1024


class UploadRecord:
    """The location of one upload, in a file of its own that a process has for itself.

    Args:
        descriptor: The open file; negative to remember nothing.
        path: Where it is.
    """

    def __init__(self, descriptor: int = -1, path: Path | None = None) -> None:
        self._descriptor = descriptor
        self._path = path
        self.location = ""
        if descriptor >= 0:
            with suppress(UnicodeDecodeError):
                self.location = os.pread(descriptor, _MAX_BYTES, 0).decode("ascii")

    def keep(self) -> None:
        """Write the location down. Losing it costs a repetition, no more, so nothing is synced."""
        if self._descriptor >= 0:
            data = self.location.encode("ascii", "replace")
            os.pwrite(self._descriptor, data, 0)
            os.ftruncate(self._descriptor, len(data))

    def remove(self) -> None:
        """Forget it: the upload is complete."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


@contextmanager
def upload_record(folder: Path | None, target: Reference, blob: Descriptor) -> Iterator[UploadRecord]:
    """Open the record of a blob's upload; while it is open no other process uses it.

    A location may open the upload to whoever knows it: the file is for its owner alone.

    Args:
        folder: Where records are, made when missing; None remembers nothing.
        target: Registry and repository.
        blob: What is uploaded.
    """
    descriptor = -1
    path = None
    if folder is not None:
        name = hashlib.sha256(f"{target.registry}/{target.repository}@{blob.digest}".encode()).hexdigest()
        path = folder / name
        with suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if descriptor >= 0:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)
                descriptor, path = -1, None
        record = UploadRecord(descriptor, path if descriptor >= 0 else None)
        yield record
        if descriptor >= 0 and not os.fstat(descriptor).st_size:
            record.remove()
    finally:
        if descriptor >= 0:
            os.close(descriptor)
