from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalmark.client import DEFAULT_ADDRESS, ServerAddress
from metalmark.model import InputError


@pytest.mark.parametrize(
    ("text", "written", "port", "local"),
    [
        (DEFAULT_ADDRESS, "http://localhost:6610", 6610, True),
        ("https://Bench.Example.com", "https://bench.example.com", 443, False),
        ("https://bench.example.com:443/", "https://bench.example.com", 443, False),
        ("http://[::1]:80", "http://[::1]", 80, True),
        ("http://127.3.2.1", "http://127.3.2.1", 80, True),
        ("http://localhost.example.com", "http://localhost.example.com", 80, False),
        (" http://x/api/ ", "http://x/api", 80, False),
    ],
)
def test_address_is_read_and_written(text: str, written: str, port: int, local: bool) -> None:
    address = ServerAddress.parse(text)
    assert (str(address), address.port, address.is_local) == (written, port, local)
    assert ServerAddress.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    ["", "localhost:6610", "ftp://x", "http://", "http://x:0", "http://x:99999", "http://x?a=b", "http://x#f",
     "http://[::1", "http://a b", "//x", "http://x/a b"],
)  # fmt: skip
def test_what_is_no_address_is_refused_by_its_flag(text: str) -> None:
    with pytest.raises(InputError) as caught:
        ServerAddress.parse(text, field="METALMARK_HOST")
    assert caught.value.field == "METALMARK_HOST"


def test_password_in_an_address_is_not_repeated() -> None:
    with pytest.raises(InputError) as caught:
        ServerAddress.parse("https://ada:secret@x")
    assert "secret" not in str(caught.value)


@given(st.text(min_size=1))
def test_segment_of_a_path_stays_one(segment: str) -> None:
    try:
        segment.encode()
    except UnicodeEncodeError:
        return
    if segment in (".", ".."):
        return
    url = ServerAddress.parse("http://x/prefix").url("runners", segment, "key")
    rest = url.removeprefix("http://x/prefix/v0/runners/").removesuffix("/key")
    assert not set("/?#") & set(rest)
    assert url.isascii()


@pytest.mark.parametrize("segment", ["", ".", ".."])
def test_segment_that_would_lead_elsewhere_is_refused(segment: str) -> None:
    with pytest.raises(InputError):
        ServerAddress.parse("http://x").url("runners", segment, "specs")
