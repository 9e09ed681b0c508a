from __future__ import annotations

import pytest

from metalmark.model import Outcome
from metalmark.wire import IterationEnd, IterationOutput, ends_of, some_ends
from metalmark.wire.iteration_output import ITERATION_ENDS_MAX


def test_ends_say_nothing_of_what_was_printed() -> None:
    results = (
        IterationOutput(exit_code=0, stdout="secret"),
        IterationOutput(exit_code=124, outcome=Outcome.TIMED_OUT, wall_s=2.0, output={"a": "secret"}),
    )
    assert ends_of(results) == (
        IterationEnd(iteration=1, exit_code=0),
        IterationEnd(iteration=2, exit_code=124, outcome=Outcome.TIMED_OUT, wall_s=2.0),
    )


@pytest.mark.parametrize(
    ("count", "failed", "last"),
    [
        (ITERATION_ENDS_MAX, (), ITERATION_ENDS_MAX),
        (ITERATION_ENDS_MAX + 1, (), ITERATION_ENDS_MAX),
        (5000, (4000, 4500), 4000),
        (5000, (3,), ITERATION_ENDS_MAX),
    ],
)
def test_ends_are_bounded_and_keep_the_first_failure(count: int, failed: tuple[int, ...], last: int) -> None:
    ends = [IterationEnd(iteration=number, exit_code=int(number in failed)) for number in range(1, count + 1)]
    kept = some_ends(ends)
    assert len(kept) == ITERATION_ENDS_MAX
    assert kept[:-1] == tuple(ends[: ITERATION_ENDS_MAX - 1])
    assert kept[-1] == ends[last - 1]
    assert not failed or any(end.exit_code for end in kept)
