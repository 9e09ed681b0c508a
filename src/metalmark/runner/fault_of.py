"""Names an error that nobody foresaw, so that a run always ends with an outcome."""

from __future__ import annotations

import errno

import structlog

from metalmark.model import BoxLost, MetalmarkError, NoPermission, NoSpace, StableError

_log = structlog.get_logger(__name__)


def as_metalmark_error(error: BaseException) -> MetalmarkError:
    """Return an error of Metalmark's own tree: itself, the one that a group holds, or what comes closest."""
    if isinstance(error, BaseExceptionGroup):
        members = [as_metalmark_error(member) for member in error.exceptions]
        # A lost box makes whatever else was under way fail too; the other error says more about why.
        return next((member for member in members if not isinstance(member, BoxLost)), members[0])
    if isinstance(error, MetalmarkError):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(
            f"no space left: {error}",
            hint="free some with `metalmark image gc`, or set METALMARK_HOME to a larger file system",
        )
    if isinstance(error, PermissionError):
        return NoPermission(f"the operating system refused: {error}")
    _log.error("unforeseen error", exc_info=error)
    return StableError(
        f"{type(error).__name__}: {error}",
        why="this is a defect in Metalmark",
        hint="please report it with the log of -vv",
    )
