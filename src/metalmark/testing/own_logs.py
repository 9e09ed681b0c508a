"""Logs of what runs inside a test's own process."""

from __future__ import annotations

import sys

import structlog


def log_beside_tests() -> None:
    """Send logs to the process's own standard error, never to the stdout of a command that a test looks at."""
    structlog.configure(
        # The default shows variables of every frame of an error, which takes seconds for a deep one.
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(file=sys.__stderr__),
    )
