"""The transition table against the states as they are documented, written out a second time by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from metalmark.model import (
    FINAL,
    RUNNER_EVENTS,
    TRANSITIONS,
    Effect,
    EndReason,
    JobEvent,
    JobLimits,
    JobStatus,
    expiry_event,
    needed_s,
    sources,
    status_of,
    time_limit,
    touched,
    transition,
)

NOW = datetime(2026, 1, 31, 9, 15, tzinfo=UTC)

# A state is a move; "." keeps, "t" touches, "s" stops the runner, "!" refuses.
TABLE = """
                pending   claimed    running    completed  processed  failed     canceled
claim           claimed   !          !          !          !          !          !
start           !         running    t          .          .          .          s
heartbeat       !         t          t          .          .          .          s
complete        !         completed  completed  .          .          completed  .
fail            !         failed     failed     .          .          .          .
runner_cancel   !         canceled   canceled   !          !          !          .
requeue         .         pending    pending    .          .          .          .
lease_expire    .         failed     failed     .          .          .          .
limit_expire    .         canceled   canceled   .          .          .          .
pending_expire  canceled  .          .          .          .          .          .
cancel          canceled  canceled   canceled   !          !          !          .
process         !         !          !          processed  .          !          !
process_fail    !         !          !          failed     .          .          !
"""
SIGNS = {".": Effect.KEEP, "t": Effect.TOUCH, "s": Effect.STOP, "!": Effect.REFUSE}


def cells() -> list[tuple[JobStatus, JobEvent, str]]:
    head, *rows = [line.split() for line in TABLE.strip().splitlines()]
    return [
        (JobStatus(status), JobEvent(row[0]), cell) for row in rows for status, cell in zip(head, row[1:], strict=True)
    ]


@pytest.mark.parametrize(("status", "event", "cell"), cells())
def test_every_event_in_every_state(status: JobStatus, event: JobEvent, cell: str) -> None:
    step = transition(status, event)
    if cell in SIGNS:
        assert (step.effect, step.target) == (SIGNS[cell], status)
    else:
        assert (step.effect, step.target) == (Effect.MOVE, JobStatus(cell))


def test_the_table_above_is_whole() -> None:
    assert {(status, event) for status, event, _ in cells()} == set(TRANSITIONS)


def test_an_updates_filter_is_what_the_table_moves() -> None:
    for event in JobEvent:
        moved = {status for status in JobStatus if transition(status, event).effect is Effect.MOVE}
        assert sources(event) == moved
        assert touched(event) == {status for status in JobStatus if transition(status, event).effect is Effect.TOUCH}


def test_only_a_late_result_leaves_a_final_state() -> None:
    left = {
        (status, event) for status in FINAL for event in JobEvent if transition(status, event).effect is Effect.MOVE
    }
    assert left == {(JobStatus.FAILED, JobEvent.COMPLETE)}


def test_no_runner_moves_a_job_that_none_holds() -> None:
    assert {transition(JobStatus.PENDING, event).effect for event in RUNNER_EVENTS} == {Effect.REFUSE}


def test_numbers_are_those_of_the_wires_documentation() -> None:
    names = ["pending", "claimed", "running", "completed", "processed", "failed", "canceled"]
    assert [status_of(code).value for code in range(7)] == names
    assert [JobStatus(name).code for name in names] == list(range(7))
    for code in (-1, 7):
        with pytest.raises(ValueError, match="no job state"):
            status_of(code)


def test_what_has_run_and_what_is_held() -> None:
    assert [status.has_run for status in JobStatus] == [False, False, False, True, True, True, True]
    assert [status.is_active for status in JobStatus] == [False, True, True, False, False, False, False]


def test_a_jobs_limit_covers_all_iterations_and_one_start() -> None:
    limits = JobLimits(grace_s=60, start_allowance_s=600)
    assert time_limit(limits, timeout_s=300, iterations=3) == timedelta(seconds=3 * 360 + 600)
    assert time_limit(limits, timeout_s=300, iterations=0) == timedelta(seconds=600)
    bounded = JobLimits(grace_s=60, start_allowance_s=600, max_duration_s=1000)
    assert time_limit(bounded, timeout_s=300, iterations=3) == timedelta(seconds=1000)
    assert needed_s(bounded, timeout_s=300, iterations=3) == 3 * 360 + 600
    assert time_limit(limits, timeout_s=2**31, iterations=2**32) == timedelta(days=36_500)


@pytest.mark.parametrize(
    ("limit_s", "began", "retries", "event", "reason"),
    [
        (1, False, 1, JobEvent.REQUEUE, EndReason.HEARTBEAT_TIMEOUT),
        (1, True, 1, JobEvent.LEASE_EXPIRE, EndReason.HEARTBEAT_TIMEOUT),
        (1, False, 0, JobEvent.LEASE_EXPIRE, EndReason.HEARTBEAT_TIMEOUT),
        (0, False, 1, JobEvent.LIMIT_EXPIRE, EndReason.JOB_TIMEOUT_EXCEEDED),
        (None, True, 0, JobEvent.LEASE_EXPIRE, EndReason.HEARTBEAT_TIMEOUT),
    ],
)
def test_what_becomes_of_a_lease_that_ran_out(
    limit_s: int | None, began: bool, retries: int, event: JobEvent, reason: EndReason
) -> None:
    limit = None if limit_s is None else NOW + timedelta(seconds=limit_s)
    assert expiry_event(now=NOW, limit_expires=limit, began=began, retries_left=retries) == (event, reason)
