"""How an iteration ended."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """Every iteration ends in exactly one of these."""

    EXITED = "exited"
    SIGNALED = "signaled"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    NOT_FOUND = "not_found"
    NOT_EXECUTABLE = "not_executable"
    CANCELED = "canceled"
    INFRASTRUCTURE = "infrastructure"


class Fault(StrEnum):
    """Whether an infrastructure fault is worth another try."""

    TRANSIENT = "transient"
    STABLE = "stable"


EXIT_TIMED_OUT = 124
EXIT_INFRASTRUCTURE = 125
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127
EXIT_SIGNAL_BASE = 128
_SIGKILL = 9
_SIGINT = 2


def exit_code(outcome: Outcome, *, code: int | None = None, signal: int | None = None) -> int:
    """Return the process exit code that stands for an outcome, as POSIX shells and ``timeout(1)`` have them.

    Args:
        outcome: How the iteration ended.
        code: The benchmark's own exit code, for ``EXITED``.
        signal: The signal's number, for ``SIGNALED`` and ``CANCELED``.
    """
    match outcome:
        case Outcome.EXITED:
            return code or 0
        case Outcome.SIGNALED:
            return EXIT_SIGNAL_BASE + (signal or _SIGKILL)
        case Outcome.TIMED_OUT:
            return EXIT_TIMED_OUT
        case Outcome.OUT_OF_MEMORY:
            return EXIT_SIGNAL_BASE + _SIGKILL
        case Outcome.NOT_FOUND:
            return EXIT_NOT_FOUND
        case Outcome.NOT_EXECUTABLE:
            return EXIT_NOT_EXECUTABLE
        case Outcome.CANCELED:
            return EXIT_SIGNAL_BASE + (signal or _SIGINT)
        case Outcome.INFRASTRUCTURE:
            return EXIT_INFRASTRUCTURE
