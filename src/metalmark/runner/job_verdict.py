"""What a finished run is to the server that gave the job."""

from __future__ import annotations

from dataclasses import replace

from metalmark.model import (
    BoxTooSmall,
    DigestMismatch,
    ErrorResult,
    ImageNotFound,
    InputError,
    IterationResult,
    LayerRefused,
    NotAnImage,
    Outcome,
    ProcessRefused,
    RunResult,
    UnsupportedImage,
    WrongPlatform,
)
from metalmark.runner.end_file import EndKind, EndOfJob
from metalmark.wire import IterationEnd, some_ends

_OF_THE_JOB = frozenset(
    error.__name__
    for error in (
        BoxTooSmall,
        DigestMismatch,
        ImageNotFound,
        InputError,
        LayerRefused,
        NotAnImage,
        ProcessRefused,
        UnsupportedImage,
        WrongPlatform,
    )
)
"""Errors that another machine would meet too."""


def end_of_run(
    result: RunResult, *, iterations: int, allow_failure: bool, timeout_s: float, canceled_because: str | None
) -> EndOfJob:
    """Return how a job ended.

    Args:
        result: The run.
        iterations: How many were asked for.
        allow_failure: Whether a benchmark may fail.
        timeout_s: Limit of an iteration, for the error.
        canceled_because: Why it was stopped; None when nobody asked for that.
    """
    end = _verdict(
        result,
        iterations=iterations,
        allow_failure=allow_failure,
        timeout_s=timeout_s,
        canceled_because=canceled_because,
    )
    ends = (
        IterationEnd(iteration=one.iteration, exit_code=one.exit_code, outcome=one.outcome, wall_s=one.wall_s)
        for one in result.iterations
    )
    return replace(end, iterations=some_ends(ends))


def _verdict(
    result: RunResult, *, iterations: int, allow_failure: bool, timeout_s: float, canceled_because: str | None
) -> EndOfJob:
    if canceled_because is not None and (result.error is not None or _was_cut_short(result, iterations)):
        return EndOfJob(kind=EndKind.CANCELED)
    if result.error is not None:
        return EndOfJob(
            kind=EndKind.FAILED, error=_text(result.error), infrastructure=result.error.type not in _OF_THE_JOB
        )
    for iteration in result.iterations:
        if iteration.outcome is Outcome.INFRASTRUCTURE:
            broken = iteration.error is None or iteration.error.type not in _OF_THE_JOB
            return EndOfJob(kind=EndKind.FAILED, error=_why(iteration, timeout_s), infrastructure=broken)
        if iteration.exit_code != 0 and not allow_failure:
            return EndOfJob(kind=EndKind.FAILED, error=_why(iteration, timeout_s))
    return EndOfJob(kind=EndKind.COMPLETED)


def _was_cut_short(result: RunResult, iterations: int) -> bool:
    return len(result.iterations) < iterations or any(one.outcome is Outcome.CANCELED for one in result.iterations)


def _why(iteration: IterationResult, timeout_s: float) -> str:
    match iteration.outcome:
        case Outcome.TIMED_OUT:
            what = f"timed out after {timeout_s:g} s"
        case Outcome.OUT_OF_MEMORY:
            what = "ran out of memory"
        case Outcome.SIGNALED:
            what = f"was ended by signal {iteration.signal}"
        case _ if iteration.error is not None:
            return f"iteration {iteration.iteration}: {_text(iteration.error)}"
        case _:
            what = f"ended with exit code {iteration.exit_code}"
    return f"iteration {iteration.iteration} {what}"


def _text(error: ErrorResult) -> str:
    return f"{error.message} ({error.hint})" if error.hint else error.message
