"""The command ``metalmark``: its entry point, and the two answers that need none of its machinery."""

from __future__ import annotations

import sys

import metalmark

_HELP_PAGES = {
    ("--help",): "metalmark.txt",
    ("-h",): "metalmark.txt",
    ("runner", "run", "--help"): "metalmark-runner-run.txt",
    ("runner", "run", "-h"): "metalmark-runner-run.txt",
}
"""The pages that ``scripts/write-reference`` makes from the application; a test holds them equal to it."""


def main() -> None:
    """Run the command line and exit with its code."""
    words = tuple(sys.argv[1:])
    if words in (("--version",), ("-V",)):
        sys.stdout.write(f"metalmark {metalmark.__version__}\n")
        return
    # Importing the option parser costs ten times what Python itself does, and these two pages never change.
    if page := _HELP_PAGES.get(words):
        from pathlib import Path

        sys.stdout.write((Path(__file__).parent / "pages" / page).read_text(encoding="utf-8"))
        return
    from metalmark.cli.application import run_application

    run_application(words)
