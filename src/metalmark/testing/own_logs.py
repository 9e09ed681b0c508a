"""Logs of what runs inside a test's own process."""

from __future__ import annotations

import sys
from collections.abc import MutableMapping
from typing import Any

import structlog


def log_beside_tests() -> None:
    """Send logs of faults to the process's own standard error, never to the stdout of a command under test."""
    structlog.configure(
        # The default shows variables of every frame of an error, which takes seconds for a deep one.
        processors=[
            _faults_alone,
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(file=sys.__stderr__),
    )


def _faults_alone(_logger: object, level: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Drop what goes well: a server of many tests says it between them too, into the list of results."""
    if level in ("debug", "info"):
        raise structlog.DropEvent
    return event
