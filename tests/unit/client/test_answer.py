from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalmark.client.answer import fault_text, parse_json, refusal
from metalmark.model import ProtocolError


def body(**fields: object) -> bytes:
    return json.dumps(fields).encode()


def test_refusal_has_the_servers_words_and_the_request() -> None:
    error = refusal(
        409,
        body(request_id="r-1", message="slug taken", error_code="c-1"),
        what="POST /v0/runners",
        with_credential=True,
    )
    assert str(error) == "the server refused POST /v0/runners with 409: slug taken (request r-1, code c-1)"
    assert (error.status, error.request_id, error.error_code) == (409, "r-1", "c-1")


def test_number_of_the_request_may_stand_in_the_header_only() -> None:
    error = refusal(404, b"<html>", what="GET /v0/x", header_request_id="h-1", with_credential=False)
    assert (error.request_id, error.why) == ("h-1", "")


@pytest.mark.parametrize(("status", "credential", "told"), [(401, True, "key create"), (401, False, "--key-file")])
def test_hint_depends_on_whether_there_was_a_credential(status: int, credential: bool, told: str) -> None:
    assert told in refusal(status, b"", what="GET /", with_credential=credential).hint


@given(st.integers(400, 599), st.binary())
def test_any_body_makes_an_error(status: int, bad: bytes) -> None:
    assert str(status) in str(refusal(status, bad, what="GET /", with_credential=False))
    assert str(status) in fault_text(status, bad)


@pytest.mark.parametrize("bad", [b"[1", b"<html>", b"\xff", b"[" * 100_000])
def test_answer_that_is_not_json(bad: bytes) -> None:
    with pytest.raises(ProtocolError, match="GET /v0/x is not JSON"):
        parse_json(bad, what="GET /v0/x")


def test_empty_answer_is_none() -> None:
    assert parse_json(b"", what="DELETE /") is None
