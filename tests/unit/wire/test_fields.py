"""Fields: repeated, unknown, cut off."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalmark.model import ProtocolError
from metalmark.wire import Fields, pack

VALUES = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=30)), max_size=10)


def test_the_layout_of_a_field() -> None:
    assert pack([(7, b"ab"), (1, 258)]) == bytes.fromhex("07 02000000 6162 01 08000000 0201000000000000")


@given(values=VALUES)
def test_every_value_comes_back_in_order(values: list[tuple[int, bytes]]) -> None:
    fields = Fields(pack(values))
    for tag in {tag for tag, _ in values}:
        of_tag = [value for found, value in values if found == tag]
        assert fields.all(tag) == tuple(of_tag)
        assert fields.raw(tag) == of_tag[-1]


@given(number=st.integers(0, 2**64 - 1))
def test_integers_are_eight_bytes(number: int) -> None:
    assert Fields(pack([(1, number)])).integer(1) == number


def test_defaults_for_what_is_missing() -> None:
    fields = Fields(b"")
    assert (fields.all(1), fields.raw(1, b"d"), fields.text(1, "d"), fields.integer(1, 5)) == ((), b"d", "d", 5)


def test_text_that_is_not_utf8_is_shown_as_far_as_it_goes() -> None:
    assert Fields(pack([(1, b"a\xffb")])).text(1) == "a�b"


@given(values=VALUES.filter(bool), missing=st.integers(1, 4))
def test_a_payload_that_is_cut_off_is_refused(values: list[tuple[int, bytes]], missing: int) -> None:
    with pytest.raises(ProtocolError):
        Fields(pack([*values, (1, b"1234")])[:-missing])


def test_an_integer_of_another_length_is_refused() -> None:
    with pytest.raises(ProtocolError, match="an integer has eight"):
        Fields(pack([(1, b"1234")])).integer(1)


@given(data=st.binary(max_size=100))
def test_noise_gives_fields_or_a_protocol_error(data: bytes) -> None:
    try:
        Fields(data)
    except ProtocolError:
        return
