"""Logging: text on a terminal, one JSON object a line elsewhere, always on stderr."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from enum import IntEnum
from typing import TYPE_CHECKING

from metalmark.model import InputError, printable

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger


class Verbosity(IntEnum):
    """The least level that is shown, in the numbers of the standard library."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40

    @classmethod
    def of(cls, *, verbose: int, quiet: bool, environment: Mapping[str, str]) -> Verbosity:
        """Return the level that flags and METALMARK_LOG ask for; a flag beats the variable.

        Raises:
            InputError: METALMARK_LOG is not a level.
        """
        if quiet:
            return cls.ERROR
        if verbose:
            return cls.INFO if verbose == 1 else cls.DEBUG
        name = environment.get("METALMARK_LOG", "")
        if not name:
            return cls.WARNING
        try:
            return cls[name.upper()]
        except KeyError:
            raise InputError(
                "METALMARK_LOG", name, "this is not a level", hint="use debug, info, warning or error"
            ) from None


_shown = Verbosity.WARNING


def shown() -> Verbosity:
    """Return the level that was set up last."""
    return _shown


def set_up_logging(verbosity: Verbosity) -> None:
    """Send log events of at least a level to stderr."""
    global _shown  # noqa: PLW0603  # one process has one stderr, and so one level
    _shown = verbosity
    import structlog

    terminal = sys.stderr.isatty()
    shape: list[Processor] = (
        # The default shows local variables beside each line, and a server's hold credentials.
        [_disarmed, structlog.dev.ConsoleRenderer(colors=True, exception_formatter=structlog.dev.plain_traceback)]
        if terminal
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S.%f" if terminal else "iso", utc=not terminal),
            *shape,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(int(verbosity)),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )


def _disarmed(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape what a terminal would obey: events repeat what servers say and images hold."""
    return {name: printable(value) if isinstance(value, str) else value for name, value in event.items()}
