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


def test_bindings_that_overlap_leave_the_thread_as_it_was() -> None:
    before = os.sched_getaffinity(0)
    first, second = bound_to({min(before)}), bound_to({max(before)})
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert os.sched_getaffinity(0) == {max(before)}, "the one that goes on holds"
    second.__exit__(None, None, None)
    assert os.sched_getaffinity(0) == before


def test_of_bindings_inside_each_other_the_outer_one_holds_again() -> None:
    before = os.sched_getaffinity(0)
    with bound_to({min(before)}):
        with bound_to({max(before)}):
            assert os.sched_getaffinity(0) == {max(before)}
        assert os.sched_getaffinity(0) == {min(before)}
    assert os.sched_getaffinity(0) == before
