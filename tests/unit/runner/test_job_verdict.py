from __future__ import annotations

from dataclasses import replace

import pytest

from metalmark.model import (
    ErrorResult,
    IterationResult,
    LimitsResult,
    Outcome,
    RunResult,
    StreamResult,
    exit_code,
)
from metalmark.runner.end_file import EndKind, EndOfJob
from metalmark.runner.job_verdict import end_of_run

EMPTY = StreamResult(kept_bytes=0, written_bytes=0, truncated=False)
LIMITS = LimitsResult(vcpus=1, memory_bytes=1, disk_bytes=1, pids=1, timeout_s=1, network=False)


def iteration(
    number: int, outcome: Outcome = Outcome.EXITED, *, code: int = 0, signal: int | None = None, error: str = ""
) -> IterationResult:
    return IterationResult(
        iteration=number,
        outcome=outcome,
        exit_code=exit_code(outcome, code=code, signal=signal),
        signal=signal,
        stdout=EMPTY,
        stderr=EMPTY,
        error=ErrorResult(type=error, message="it broke", hint="mend it") if error else None,
    )


def end(
    *iterations: IterationResult, wanted: int = 0, error: str = "", allow: bool = False, canceled: str | None = None
) -> EndOfJob:
    result = RunResult(
        metalmark_version="1", started_at="", image=None, command=(), host=None, limits=LIMITS, seed=0,
        verdict="measured", iterations=iterations, exit_code=0,
        error=ErrorResult(type=error, message="it broke", hint="mend it") if error else None,
    )  # fmt: skip
    found = end_of_run(
        result, iterations=wanted or len(iterations), allow_failure=allow, timeout_s=60, canceled_because=canceled
    )
    assert [(one.iteration, one.exit_code, one.outcome) for one in found.iterations] == [
        (one.iteration, one.exit_code, one.outcome) for one in iterations
    ]
    return replace(found, iterations=())


def test_all_iterations_ran() -> None:
    assert end(iteration(1), iteration(2)) == EndOfJob(kind=EndKind.COMPLETED)


def test_no_iteration_at_all_is_complete() -> None:
    assert end().kind is EndKind.COMPLETED


@pytest.mark.parametrize(
    ("last", "error"),
    [
        (iteration(2, code=3), "iteration 2 ended with exit code 3"),
        (iteration(2, Outcome.TIMED_OUT), "iteration 2 timed out after 60 s"),
        (iteration(2, Outcome.SIGNALED, signal=11), "iteration 2 was ended by signal 11"),
        (iteration(2, Outcome.OUT_OF_MEMORY), "iteration 2 ran out of memory"),
        (iteration(2, Outcome.NOT_FOUND, error="ProcessRefused"), "iteration 2: it broke (mend it)"),
    ],
)
def test_failed_benchmark_says_how_and_may_be_allowed_to(last: IterationResult, error: str) -> None:
    assert end(iteration(1), last) == EndOfJob(kind=EndKind.FAILED, error=error)
    assert end(iteration(1), last, allow=True).kind is EndKind.COMPLETED


@pytest.mark.parametrize("allow", [True, False])
@pytest.mark.parametrize(
    ("error", "infrastructure"),
    [("BoxLost", True), ("NoSpace", True), ("PhaseTimeout", True), ("ProcessRefused", False), ("BoxTooSmall", False)],
)
def test_what_is_not_the_benchmarks_fault_is_told_apart(error: str, infrastructure: bool, allow: bool) -> None:
    found = end(iteration(1, Outcome.INFRASTRUCTURE, error=error), allow=allow)
    assert (found.kind, found.infrastructure) == (EndKind.FAILED, infrastructure)
    found = end(error=error, allow=allow)
    assert (found.kind, found.infrastructure, found.error) == (EndKind.FAILED, infrastructure, "it broke (mend it)")


def test_canceled_job_was_canceled() -> None:
    assert end(iteration(1, Outcome.CANCELED), canceled="somebody did") == EndOfJob(kind=EndKind.CANCELED)
    assert end(error="Canceled", canceled="somebody did").kind is EndKind.CANCELED
    assert end(iteration(1), wanted=2, canceled="somebody did").kind is EndKind.CANCELED


def test_cancel_that_came_too_late_changes_nothing() -> None:
    assert end(iteration(1), canceled="somebody did").kind is EndKind.COMPLETED
    assert end(iteration(1, code=1), canceled="somebody did").kind is EndKind.FAILED
