from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalmark.host import LogicalCpu, Topology, fits, place, split
from metalmark.model import InputError


def machine(*online: int, allowed: tuple[int, ...] = ()) -> Topology:
    return Topology(cpus=tuple(LogicalCpu(number=number) for number in online), allowed=allowed or online)


@pytest.mark.parametrize(
    ("online", "housekeeping", "benchmark"),
    [
        ((0, 1), (0,), (1,)),
        ((0, 2, 4, 6), (0,), (2, 4, 6)),
        (tuple(range(7)), (0,), (1, 2, 3, 4, 5, 6)),
        (tuple(range(8)), (0, 1), (2, 3, 4, 5, 6, 7)),
    ],
)
def test_the_first_or_first_two_do_the_housekeeping(
    online: tuple[int, ...], housekeeping: tuple[int, ...], benchmark: tuple[int, ...]
) -> None:
    sets = split(machine(*online))
    assert sets.housekeeping == housekeeping
    assert sets.benchmark == benchmark
    assert sets.isolated


def test_one_cpu_is_shared() -> None:
    placed = place(machine(3), vcpus=1)
    assert placed.cpus == placed.helper_cpus == (3,)
    assert not placed.isolated
    assert "one CPU" in placed.warnings[0]


def test_the_benchmark_is_pinned_without_being_asked() -> None:
    placed = place(machine(*range(8)), vcpus=2)
    assert placed.cpus == (2, 3)
    assert placed.helper_cpus == (0, 1)
    assert placed.isolated
    assert placed.warnings == ()


def test_housekeeping_is_borrowed_with_a_warning() -> None:
    placed = place(machine(*range(8)), vcpus=7)
    assert placed.cpus == (2, 3, 4, 5, 6, 7, 1)
    assert placed.helper_cpus == (0,)
    assert placed.isolated
    assert "housekeeping CPU 1" in placed.warnings[0]


def test_every_cpu_taken_is_not_isolated() -> None:
    placed = place(machine(0, 1), vcpus=2)
    assert placed.cpus == (1, 0)
    assert placed.helper_cpus == (0,)
    assert not placed.isolated
    assert placed.warnings


@pytest.mark.parametrize(
    ("topology", "vcpus"), [(machine(0, 1), 3), (machine(0, 1, 2, 3, allowed=(2,)), 2), (machine(0), 0)]
)
def test_more_than_there_is_is_refused(topology: Topology, vcpus: int) -> None:
    with pytest.raises(InputError) as caught:
        place(topology, vcpus=vcpus)
    assert caught.value.field == "--vcpus"
    assert caught.value.value == vcpus


def test_a_narrowed_process_is_told_so() -> None:
    with pytest.raises(InputError, match=r"of 4 online CPUs this process may use 1 \(2\)"):
        place(machine(0, 1, 2, 3, allowed=(2,)), vcpus=2)


def test_requested_cpus_are_used_and_helpers_go_elsewhere() -> None:
    placed = place(machine(*range(4)), vcpus=2, requested=(0, 3))
    assert placed.cpus == (0, 3)
    assert placed.helper_cpus == (1, 2)
    assert placed.isolated


def test_helpers_prefer_the_housekeeping_set() -> None:
    assert place(machine(*range(4)), vcpus=1, requested=(3,)).helper_cpus == (0,)


def test_spare_requested_cpus_stay_free_of_helpers() -> None:
    placed = place(machine(*range(4)), vcpus=1, requested=(2, 3))
    assert placed.cpus == (2,)
    assert placed.helper_cpus == (0,)
    assert "only 2 is used" in placed.warnings[0]
    assert "--vcpus 1" in placed.warnings[0]


@pytest.mark.parametrize(
    ("requested", "vcpus", "why"),
    [((7,), 1, "CPU 7 is not online"), ((0,), 1, "CPU 0 is kept from this process"), ((2,), 2, "need as many CPUs")],
)
def test_requested_cpus_are_checked(requested: tuple[int, ...], vcpus: int, why: str) -> None:
    with pytest.raises(InputError, match=why) as caught:
        place(machine(0, 1, 2, 3, allowed=(1, 2, 3)), vcpus=vcpus, requested=requested)
    assert caught.value.field == "--cpus"


@given(data=st.data())
def test_placement_keeps_its_promises(data: st.DataObject) -> None:
    online = tuple(sorted(data.draw(st.sets(st.integers(0, 63), min_size=1, max_size=20))))
    allowed = tuple(sorted(data.draw(st.sets(st.sampled_from(online), min_size=1))))
    requested = tuple(sorted(data.draw(st.sets(st.sampled_from(allowed)))))
    vcpus = data.draw(st.integers(1, len(requested) or len(allowed)))
    placed = place(machine(*online, allowed=allowed), vcpus=vcpus, requested=requested)
    assert len(placed.cpus) == len(set(placed.cpus)) == vcpus
    assert set(placed.cpus) <= set(allowed)
    assert placed.helper_cpus
    assert set(placed.helper_cpus) <= set(allowed)
    assert placed.isolated == (not set(placed.cpus) & set(placed.helper_cpus))
    if requested:
        assert set(placed.cpus) <= set(requested)
    if vcpus < len(allowed):
        assert placed.isolated
    else:
        assert placed.warnings


def test_cpus_of_other_jobs_are_left_alone() -> None:
    four = machine(*range(4))
    placed = place(four, vcpus=2, in_use=(1,))
    assert (placed.cpus, placed.helper_cpus, placed.isolated) == ((2, 3), (0,), True)
    with pytest.raises(InputError, match="other jobs use CPU 1"):
        place(four, vcpus=3, in_use=(1,))


@given(data=st.data())
def test_jobs_that_fit_side_by_side_share_nothing(data: st.DataObject) -> None:
    topology = machine(*range(data.draw(st.integers(1, 12))))
    used: set[int] = set()
    for vcpus in data.draw(st.lists(st.integers(1, 4), max_size=6)):
        if vcpus > len(topology.allowed) or not fits(topology, vcpus=vcpus, in_use=used):
            continue
        placed = place(topology, vcpus=vcpus, in_use=used)
        assert len(placed.cpus) == vcpus
        assert not used & set(placed.cpus)
        if used:
            assert not set(placed.cpus) & set(placed.helper_cpus)
        used |= set(placed.cpus)
