from __future__ import annotations

import pytest

from metalmark.model import BoxLost, Canceled, Fault, NoSpace, Outcome
from metalmark.runner.outcome_of import verdict_of_end, verdict_of_error
from metalmark.wire import Ending, Exited


def exited(ending: Ending, code: int, message: str = "") -> Exited:
    return Exited(
        ending=ending, code=code, started_ns=0, ended_ns=1, user_us=0, system_us=0, memory_peak_bytes=0,
        stdout_bytes=0, stderr_bytes=0, message=message, left_killed=0,
    )  # fmt: skip


@pytest.mark.parametrize("ending", list(Ending))
def test_every_ending_has_an_outcome(ending: Ending) -> None:
    verdict = verdict_of_end(exited(ending, 5, "why"), argv=("/cmd",))
    assert verdict.exit_code != 0
    assert verdict.ran is (ending in {Ending.EXITED, Ending.SIGNALED, Ending.OUT_OF_MEMORY})
    assert (verdict.error is None) is verdict.ran
    if verdict.error:
        assert "why" in verdict.error.message


def test_out_of_memory_is_a_kill_whatever_the_first_process_made_of_it() -> None:
    verdict = verdict_of_end(exited(Ending.OUT_OF_MEMORY, 1), argv=("x",))
    assert (verdict.signal, verdict.exit_code) == (9, 137)


def test_what_the_runner_did_beats_how_the_command_took_it() -> None:
    end = exited(Ending.EXITED, 0)
    assert verdict_of_end(end, argv=("x",), timed_out=True).outcome is Outcome.TIMED_OUT
    assert verdict_of_end(end, argv=("x",), timed_out=True).exit_code == 124
    canceled = verdict_of_end(None, argv=("x",), timed_out=True, canceled_by=15)
    assert (canceled.outcome, canceled.exit_code, canceled.signal) == (Outcome.CANCELED, 143, 15)


def test_only_faults_of_the_machine_carry_a_fault() -> None:
    not_found = verdict_of_end(exited(Ending.NOT_FOUND, 2), argv=("x",))
    assert not_found.error is not None
    assert not_found.error.fault is None
    for error, fault in ((BoxLost("gone"), Fault.TRANSIENT), (NoSpace("full"), Fault.STABLE)):
        verdict = verdict_of_error(error)
        assert verdict.error is not None
        assert (verdict.outcome, verdict.exit_code, verdict.error.fault) == (Outcome.INFRASTRUCTURE, 125, fault)


def test_error_of_a_canceled_iteration_is_its_cancellation() -> None:
    assert verdict_of_error(Canceled("stopped"), canceled_by=2).exit_code == 130
    assert verdict_of_error(BoxLost("gone"), canceled_by=15).outcome is Outcome.CANCELED
