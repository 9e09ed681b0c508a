"""What a job came to, from the server's view of it: its outcome, its exit code, and a row an iteration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from metalmark.model.job_life import EndReason
from metalmark.model.outcome import EXIT_INFRASTRUCTURE, EXIT_SIGNAL_BASE, EXIT_TIMED_OUT, Outcome

FINAL_STATUSES = frozenset({"processed", "failed", "canceled"})
EXIT_UNSEEN = 1
"""For a benchmark that failed with a code that is not to be seen: its output is too large to show, or not for us."""
_OTHERWISE_CANCELED = {
    EndReason.JOB_TIMEOUT_EXCEEDED.value: EXIT_TIMED_OUT,
    EndReason.PENDING_TOO_LONG.value: EXIT_INFRASTRUCTURE,
    EndReason.CANCELED_BY_RUNNER.value: EXIT_INFRASTRUCTURE,
}
"""Ends that the server calls canceled, and that nobody asked for."""
_SIGINT = 2
_EXCUSED = frozenset(outcome.value for outcome in Outcome) - {Outcome.CANCELED, Outcome.INFRASTRUCTURE}


@dataclass(frozen=True, kw_only=True)
class JobIteration:
    """How one iteration ended, as far as its runner told."""

    number: int
    """From 1 on."""
    outcome: str
    exit_code: int
    wall_s: float | None = None
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class JobEnd:
    """What a job came to."""

    status: str
    exit_code: int
    """What ``metalmark run`` ends with: that of ``runner run`` for the same end."""
    iterations: tuple[JobIteration, ...] = ()
    error: str = ""
    """What the server or the runner says went wrong; empty when nothing did."""
    host: Mapping[str, str] | None = None
    """What it ran on, when the runner told."""


def read_job_end(job: object, *, allow_failure: bool = False, stopped_by: int = _SIGINT) -> JobEnd:
    """Return what a job came to.

    Args:
        job: The server's view of it, after its end.
        allow_failure: Whether failed iterations were to be passed over.
        stopped_by: The signal that stands for a job that was canceled.
    """
    record = job if isinstance(job, Mapping) else {}
    found = record.get("output")
    document = found if isinstance(found, Mapping) else {}
    rows = _iterations(document.get("results")) or _iterations(record.get("iterations"))
    status, reason = _text(record.get("status")), _text(record.get("end_reason"))
    code = _exit_code(status, reason, rows, allow_failure=allow_failure, stopped_by=stopped_by)
    if not rows and not isinstance(found, Mapping) and (status, reason) == ("failed", EndReason.REPORTED_FAILURE.value):
        # It was the benchmark; with which code, the server does not show.
        code = EXIT_UNSEEN
    return JobEnd(
        status=status,
        exit_code=code,
        iterations=rows,
        error=_text(document.get("error")) or _text(record.get("error")),
        host=_host(document.get("host")),
    )


def _iterations(results: object) -> tuple[JobIteration, ...]:
    return tuple(
        _iteration(number, result)
        for number, result in enumerate(results if isinstance(results, list | tuple) else (), 1)
        if isinstance(result, Mapping)
    )


def _iteration(place: int, result: Mapping[str, object]) -> JobIteration:
    number = result.get("iteration")
    code = result.get("exit_code")
    wall = result.get("wall_s")
    return JobIteration(
        number=number if isinstance(number, int) and number > 0 else place,
        outcome=_text(result.get("outcome")) or Outcome.EXITED.value,
        exit_code=code if isinstance(code, int) and 0 <= code <= 255 else EXIT_INFRASTRUCTURE,
        wall_s=float(wall) if isinstance(wall, int | float) and not isinstance(wall, bool) else None,
        error=_error(result.get("error")),
    )


def _exit_code(status: str, reason: str, rows: Sequence[JobIteration], *, allow_failure: bool, stopped_by: int) -> int:
    if status == "canceled":
        return _OTHERWISE_CANCELED.get(reason, EXIT_SIGNAL_BASE + stopped_by)
    for row in rows:
        if row.exit_code and not (allow_failure and row.outcome in _EXCUSED):
            return row.exit_code
    return 0 if status in ("processed", "completed") else EXIT_INFRASTRUCTURE


def _error(value: object) -> str:
    return _text(value.get("message")) if isinstance(value, Mapping) else _text(value)


def _host(value: object) -> dict[str, str] | None:
    if not isinstance(value, Mapping):
        return None
    return {name: text for name, text in value.items() if isinstance(text, str) and text}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
