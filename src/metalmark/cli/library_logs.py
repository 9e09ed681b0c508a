"""What libraries log, in the same log as everything else."""

from __future__ import annotations

import logging

import structlog

_LEVELS = ((logging.ERROR, "error"), (logging.WARNING, "warning"))


class _Forward(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger(record.name)
        kind = next((name for level, name in _LEVELS if record.levelno >= level), "info")
        getattr(log, kind)(record.getMessage(), exc_info=record.exc_info or None)


def forward_library_logs() -> None:
    """Send warnings and errors of libraries to this program's own log."""
    logging.basicConfig(handlers=[_Forward()], level=logging.WARNING, force=True)
