"""What set-up needs of Firecracker: where it is, getting its release archive, installing it from one."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class FirecrackerRelease(Protocol):
    """The pinned release of Firecracker for this machine."""

    @property
    def version(self) -> str:
        """The pinned version."""
        ...

    def installed(self) -> Path | None:
        """Return where that version is installed, or None."""
        ...

    async def fetch(self, folder: Path) -> Path:
        """Download the release archive into a folder, checked against its pinned SHA-256, and return it.

        Raises:
            TransientError: The site could not be reached.
            DigestMismatch: What came is something else; it is removed.
        """
        ...

    async def install(self, archive: Path) -> Path:
        """Install from a release archive, which is checked first, and return the binary.

        Raises:
            DigestMismatch: The archive is not the pinned one; nothing is installed.
        """
        ...
