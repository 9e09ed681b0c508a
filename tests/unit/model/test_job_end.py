from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalmark.model import read_job_end


def ended(status: str, *results: dict[str, Any], reason: str | None = None, **output: Any) -> dict[str, Any]:
    return {"status": status, "end_reason": reason, "output": {"results": list(results), **output}}


ENDS = {"iterations": [{"iteration": 1, "exit_code": 0}, {"iteration": 40, "exit_code": 3, "outcome": "exited"}]}


@pytest.mark.parametrize(
    ("job", "allowed", "code"),
    [
        (ended("processed", {"exit_code": 0}), False, 0),
        (ended("processed", {"exit_code": 0}, {"exit_code": 3}), True, 0),
        (ended("failed", {"exit_code": 0}, {"exit_code": 3}, {"exit_code": 4}), False, 3),
        (ended("failed", {"exit_code": 124, "outcome": "timed_out"}), False, 124),
        (ended("failed", {"exit_code": 125, "outcome": "infrastructure"}), True, 125),
        (ended("failed", {"exit_code": 137, "outcome": "signaled"}), False, 137),
        (ended("failed"), False, 125),
        (ended("failed", {"exit_code": 0}), False, 125),
        ({"status": "failed", "end_reason": "heartbeat_timeout", "error": "silent"}, False, 125),
        ({"status": "failed", "end_reason": "reported_failure"}, False, 1),
        (ENDS | {"status": "failed", "end_reason": "reported_failure"}, False, 3),
        (ENDS | {"status": "processed"}, True, 0),
        (ENDS | ended("failed", reason="reported_failure"), False, 3),
        (ended("failed", reason="reported_failure"), False, 125),
        ({"status": "canceled", "end_reason": "canceled_by_user"}, False, 130),
        ({"status": "canceled", "end_reason": "job_timeout_exceeded"}, False, 124),
        (ended("canceled", {"exit_code": 0}), False, 130),
        ({"status": "canceled", "end_reason": "pending_too_long", "error": "nobody took it"}, False, 125),
        (ended("canceled", {"exit_code": 0}, reason="canceled_by_runner"), False, 125),
        ({"status": "processed"}, False, 0),
        (ended("failed", {"exit_code": -1}), False, 125),
        (ended("failed", {"exit_code": 256}), False, 125),
    ],
)
def test_exit_code_is_that_of_the_same_end_here(job: dict[str, Any], allowed: bool, code: int) -> None:
    assert read_job_end(job, allow_failure=allowed).exit_code == code


def test_signal_that_canceled_the_job_is_in_the_code() -> None:
    assert read_job_end({"status": "canceled"}, stopped_by=15).exit_code == 143


def test_what_the_runner_told_is_kept() -> None:
    host = {"sandbox": "qemu", "accelerator": "tcg", "verdict": "emulated", "cpus": [1]}
    result = {"exit_code": 125, "outcome": "infrastructure", "wall_s": 1.5, "error": "lost"}
    job = ended("failed", result, host=host, error="it")
    end = read_job_end(job)
    [row] = end.iterations
    assert (row.number, row.outcome, row.wall_s, row.error) == (1, "infrastructure", 1.5, "lost")
    assert end.host == {"sandbox": "qemu", "accelerator": "tcg", "verdict": "emulated"}
    assert end.error == "it"


def test_ends_of_iterations_stand_in_for_output_that_is_not_shown() -> None:
    rows = read_job_end(ENDS | {"status": "failed"}).iterations
    assert [(row.number, row.outcome, row.exit_code) for row in rows] == [(1, "exited", 0), (40, "exited", 3)]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_RESULT = st.dictionaries(st.sampled_from(["exit_code", "outcome", "wall_s", "error"]), _JSON)
_NAMES = st.sampled_from(["status", "end_reason", "error"])


@given(st.dictionaries(_NAMES, _JSON), st.lists(_RESULT, max_size=3) | _JSON)
def test_any_answer_is_an_end_with_a_code(job: dict[str, Any], results: Any) -> None:
    assert 0 <= read_job_end({**job, "output": {"results": results}}).exit_code <= 255
