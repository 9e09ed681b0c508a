from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalmark.host import MAX_CPU, format_cpu_list, parse_cpu_list
from metalmark.model import InputError

CPUS = st.sets(st.integers(0, MAX_CPU), min_size=1, max_size=40)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", (0,)),
        ("0-3,8-11", (0, 1, 2, 3, 8, 9, 10, 11)),
        ("7,2-3,3", (2, 3, 7)),
        (" 1 , 2-3\n", (1, 2, 3)),
        ("5-5", (5,)),
        ("007", (7,)),
    ],
)
def test_lists_are_read(text: str, expected: tuple[int, ...]) -> None:
    assert parse_cpu_list(text, field="--cpus") == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ",",
        "1,",
        "a",
        "-1",
        "1-",
        "1--2",
        "3-1",
        "1;2",
        "0x1",
        "1.5",
        "٣",
        "1-2-3",
        "0-3:1/2",
        "99999999999",
        "65536",
    ],
)
def test_anything_else_is_refused_with_the_field_named(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_cpu_list(text, field="--cpus")
    assert caught.value.field == "--cpus"
    assert caught.value.why


def test_a_backward_range_suggests_the_forward_one() -> None:
    with pytest.raises(InputError) as caught:
        parse_cpu_list("5-2", field="--cpus")
    assert "2-5" in caught.value.hint


@pytest.mark.parametrize(
    ("cpus", "expected"), [((), ""), ((3,), "3"), ((0, 1), "0-1"), ((4, 0, 1, 2, 4), "0-2,4"), ((1, 3, 5), "1,3,5")]
)
def test_the_shortest_form_is_written(cpus: tuple[int, ...], expected: str) -> None:
    assert format_cpu_list(cpus) == expected


@given(CPUS)
def test_what_is_written_is_read_back(cpus: set[int]) -> None:
    assert parse_cpu_list(format_cpu_list(cpus), field="x") == tuple(sorted(cpus))


@given(st.text(alphabet="0123456789-, x", max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        cpus = parse_cpu_list(text, field="x")
    except InputError:
        return
    assert cpus == tuple(sorted(set(cpus)))
    assert cpus
