from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalmark.model import encodable, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("grün\nzwei", "grün\nzwei"),
        ("\x1b]0;x\x07", "\\x1b]0;x\\x07"),
        ("\x9b2J\r\t", "\\x9b2J\\r\\t"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\udcff", "\\udcff"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("text", "valid"), [("ü", "ü"), ("a\udcffb", "a\\xffb"), ("\ud800", "\\ud800"), ("\ud800\udcff", "\\ud800\\udcff")]
)
def test_what_is_no_unicode_is_escaped(text: str, valid: str) -> None:
    assert encodable(text) == valid


@given(st.text(st.characters(exclude_categories=())))
def test_every_text_can_be_written_afterwards(text: str) -> None:
    encodable(text).encode()
    assert printable(text).replace("\n", "").isprintable()
