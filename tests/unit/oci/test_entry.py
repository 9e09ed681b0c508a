"""Names of entries in errors can be read and do no harm."""

from __future__ import annotations

import pytest

from metalmark.oci.entry import shown


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"etc/passwd", "etc/passwd"),
        ("café".encode(), "café"),
        (b"caf\xe9", "caf\\xe9"),
        (b"\x1b[2J", "\\x1b[2J"),
        (b"a\nb", "a\\nb"),
        ("\u202egnp.exe".encode(), "\\u202egnp.exe"),
    ],
)
def test_what_is_not_printable_is_escaped(name: bytes, text: str) -> None:
    assert shown(name) == text


def test_long_names_are_cut_in_the_middle() -> None:
    text = shown(b"start/" + b"x" * 5000 + b"/end")
    assert len(text) < 200
    assert text.startswith("start/")
    assert text.endswith("/end")
