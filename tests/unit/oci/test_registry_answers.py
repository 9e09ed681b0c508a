from __future__ import annotations

import ssl

import httpx
import pytest

from metalmark.model import NotAnImage, RegistryDenied
from metalmark.oci.registry_answers import Hiccup, http_errors_told, read_bounded, retry_after, said
from metalmark.system import realtime_ns

pytestmark = pytest.mark.anyio


def answer(body: bytes = b"", **headers: str) -> httpx.Response:
    async def stream():  # type: ignore[no-untyped-def]  # noqa: ANN202
        for offset in range(0, len(body), 10):
            yield body[offset : offset + 10]

    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(200, headers=named, content=stream(), request=httpx.Request("GET", "https://h.io/"))


async def test_bodies_are_read_within_their_bound() -> None:
    assert await read_bounded(answer(b"x" * 100), 100) == b"x" * 100
    with pytest.raises(NotAnImage, match=r"h\.io answered with more than 99"):
        await read_bounded(answer(b"x" * 100), 99)
    assert await read_bounded(answer(b"x" * 100), 99, strict=False) == b"x" * 99


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"errors":[{"code":"DENIED","message":"no"}]}', ": 'no'"),
        (b'{"errors":[{"code":"DENIED"}]}', ": 'DENIED'"),
        (b'{"errors":[{"message":"\\u001b[2J"}]}', ": '\\x1b[2J'"),
        (b"<html>", ""),
        (b'{"errors":3}', ""),
        (b'{"errors":[]}', ""),
        (b"", ""),
    ],
)
def test_what_a_registry_says_is_shown_harmlessly(body: bytes, expected: str) -> None:
    assert said(body) == expected


def test_retry_after_is_seconds_or_a_date() -> None:
    from email.utils import formatdate

    assert retry_after(answer(Retry_After="7")) == 7
    assert retry_after(answer(Retry_After="nonsense")) is None
    assert retry_after(answer()) is None
    assert retry_after(answer(Retry_After="9" * 500)) == 999_999_999
    soon = retry_after(answer(Retry_After=formatdate(realtime_ns() / 1e9 + 30, usegmt=True)))
    assert soon is not None
    assert 20 < soon < 40
    assert retry_after(answer(Retry_After="Thu, 01 Jan 1970 00:00:00 GMT")) == 0


def test_failures_of_the_connection_may_pass_and_an_untrusted_certificate_does_not() -> None:
    with pytest.raises(Hiccup, match="in time"), http_errors_told("h.io"):
        raise httpx.ReadTimeout("")
    with pytest.raises(Hiccup, match="reset"), http_errors_told("h.io"):
        raise httpx.ReadError("reset")
    with pytest.raises(RegistryDenied, match=r"certificate of h\.io"), http_errors_told("h.io"):
        failure = ssl.SSLCertVerificationError("bad")
        failure.verify_message = "self-signed"
        raise httpx.ConnectError("tls") from failure
    with pytest.raises(KeyError), http_errors_told("h.io"):
        raise KeyError
