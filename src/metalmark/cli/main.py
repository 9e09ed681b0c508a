"""The command ``metalmark``."""

from __future__ import annotations

import sys

import metalmark


def main() -> None:
    """Run the command line."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        sys.stdout.write(f"metalmark {metalmark.__version__}\n")
        return
    raise SystemExit(2)
