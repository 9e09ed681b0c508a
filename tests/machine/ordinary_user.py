"""What an ordinary user may reach."""

from __future__ import annotations

import tempfile
from pathlib import Path


def let_everybody_in(folder: Path) -> None:
    """Let every user of the machine come to a test's folder: those above it are root's alone."""
    top = Path(tempfile.gettempdir())
    for each in (folder, *folder.parents):
        if each == top:
            return
        each.chmod(0o755)
    raise AssertionError(f"{folder} is not in {top}")
