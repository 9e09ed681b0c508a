"""The one place where an error becomes text for a person and an exit code."""

from __future__ import annotations

import sys
import traceback

from metalmark.model import EXIT_INFRASTRUCTURE, EXIT_SIGNAL_BASE, Canceled, InputError, MetalmarkError, printable

EXIT_FAILURE = 1
EXIT_USAGE = 2
_SIGINT = 2


def error_text(error: BaseException) -> str:
    """Return what is shown of an error: what was found, why that stops us, and what to do."""
    if not isinstance(error, MetalmarkError):
        return printable(f"error: {type(error).__name__}: {error}")
    lines = [f"error: {error}"]
    if error.hint:
        lines.append(f"hint: {error.hint}")
    # Messages hold words of images, registries and guests.
    return printable("\n".join(lines))


def tell(error: BaseException) -> None:
    """Show an error on stderr; one that is not Metalmark's own comes with its traceback, for it is a defect."""
    if not isinstance(error, MetalmarkError):
        traceback.print_exception(error)
    sys.stderr.write(error_text(error) + "\n")
    sys.stderr.flush()


def exit_status(error: BaseException, *, running: bool = False) -> int:
    """Return the exit code for an error.

    Args:
        error: What ended the command.
        running: Whether the command runs a benchmark, whose own exit codes must not be confused with ours: then a
            fault that is not the benchmark's is 125, elsewhere it is 1.
    """
    if isinstance(error, InputError):
        return EXIT_USAGE
    if isinstance(error, (Canceled, KeyboardInterrupt)):
        return EXIT_SIGNAL_BASE + _SIGINT
    return EXIT_INFRASTRUCTURE if running else EXIT_FAILURE
