from __future__ import annotations

import pytest

from metalmark.model import Outcome, exit_code

CODES = {
    Outcome.EXITED: 3,
    Outcome.SIGNALED: 128 + 3,
    Outcome.TIMED_OUT: 124,
    Outcome.OUT_OF_MEMORY: 137,
    Outcome.NOT_FOUND: 127,
    Outcome.NOT_EXECUTABLE: 126,
    Outcome.CANCELED: 128 + 3,
    Outcome.INFRASTRUCTURE: 125,
}


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_has_its_exit_code(outcome: Outcome) -> None:
    assert exit_code(outcome, code=3, signal=3) == CODES[outcome]


def test_without_a_signal_the_usual_one_is_meant() -> None:
    assert exit_code(Outcome.SIGNALED) == 137
    assert exit_code(Outcome.CANCELED) == 130
    assert exit_code(Outcome.EXITED) == 0
