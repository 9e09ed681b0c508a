from __future__ import annotations

import base64

import pytest

from metalmark.model import Unauthenticated
from metalmark.server.registry_caller import password_of


def basic(text: bytes) -> str:
    return "Basic " + base64.b64encode(text).decode()


@pytest.mark.parametrize(
    ("header", "password"),
    [
        (None, None),
        ("", None),
        ("Bearer abc", None),
        (basic(b"ada@example.com:secret"), "secret"),
        (basic(b":secret"), "secret"),
        (basic(b"x:with:colons"), "with:colons"),
        (basic(b"x:y").replace("Basic", "bASIC"), "y"),
    ],
)
def test_the_password_is_what_counts(header: str | None, password: str | None) -> None:
    assert password_of(header) == password


@pytest.mark.parametrize(
    "header",
    [
        "Basic",
        "Basic !!!",
        "Basic é",
        basic(b"nocolon"),
        basic(b"x:"),
        basic(b"\xff:\xff"),
        basic(b"x:" + b"y" * 20_000),
    ],
)
def test_what_holds_none_is_no_credential_at_all(header: str) -> None:
    with pytest.raises(Unauthenticated) as refusal:
        password_of(header)
    assert "yyy" not in str(refusal.value)
