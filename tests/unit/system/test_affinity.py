from __future__ import annotations

import os

from metalmark.system import bound_to


def test_bound_inside_and_as_before_outside() -> None:
    before = os.sched_getaffinity(0)
    one = min(before)
    with bound_to({one}):
        assert os.sched_getaffinity(0) == {one}
    assert os.sched_getaffinity(0) == before


def test_no_cpus_and_impossible_ones_change_nothing() -> None:
    before = os.sched_getaffinity(0)
    for cpus in ((), (1023,)):
        with bound_to(cpus):
            assert os.sched_getaffinity(0) == before
    assert os.sched_getaffinity(0) == before
