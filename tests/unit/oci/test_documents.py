from __future__ import annotations

import pytest

from metalmark.model import NotAnImage
from metalmark.oci.documents import Node, shown


def node(data: bytes) -> Node:
    return Node.parse(data, what="it")


def test_fields_are_read_by_their_path() -> None:
    top = node(b'{"a": {"b": [{"c": "x"}, {"c": 3}]}, "n": null}')
    first, second = top.get("a").get("b").items(2)
    assert first.get("c").text() == "x"
    assert second.get("c").size() == 3
    assert not top.has("n")
    assert not top.has("missing")
    assert top.get("missing").text("default") == "default"
    with pytest.raises(NotAnImage, match=r"a\.b\[1\]\.c is 3: it must be a string"):
        second.get("c").text()
    with pytest.raises(NotAnImage, match="at most 1"):
        top.get("a").get("b").items(1)


@pytest.mark.parametrize(
    "data",
    [
        b"3",
        b'"x"',
        b"null",
        b"{",
        b"NaN",
        b'{"a": Infinity}',
        b'{"a": 1, "a": 2}',
        b"[" * 50_000,
        b'{"a": "\\ud800"}',
        b'{"\\udfff": 1}',
        b'{"a": "\xed\xa0\x80"}',
        b'{"a": "\xff"}',
        '{"a": 1}'.encode("utf-16"),
    ],
)
def test_what_cannot_be_read_alike_by_all_is_refused(data: bytes) -> None:
    with pytest.raises(NotAnImage, match="it"):
        node(data)


def test_characters_beyond_the_first_plane_can_be_escaped() -> None:
    assert node(rb'{"a": "\ud83d\ude00"}').get("a").text() == "\U0001f600"


def test_foreign_text_is_shown_short_and_harmless() -> None:
    assert shown("a\x1b\n") == "'a\\x1b\\n'"
    assert len(shown("x" * 10_000)) < 100
    assert shown("ü") == "'\\xfc'"
