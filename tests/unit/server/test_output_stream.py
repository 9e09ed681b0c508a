"""Events of a job's output as text."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalmark.server.output_stream import output_event, parse_event_id
from metalmark.store import ChunkRecord, OutputStream


@given(st.binary(min_size=1, max_size=100), st.integers(0, 2**25), st.integers(1, 2**31 - 1))
def test_an_event_is_three_lines_whatever_was_printed(content: bytes, offset: int, lease: int) -> None:
    chunk = ChunkRecord(
        lease=lease,
        offset=offset,
        iteration=0,
        stream=OutputStream.STDERR,
        at=datetime(2026, 1, 31, tzinfo=UTC),
        content=content,
    )
    lines = output_event(chunk).decode().split("\n")
    assert len(lines) == 5 and lines[3:] == ["", ""]
    assert lines[1] == "event: output"
    data = json.loads(lines[2].removeprefix("data: "))
    assert set(data) in ({"iteration", "stream", "text"}, {"iteration", "stream", "base64"})
    assert parse_event_id(lines[0].removeprefix("id: ")) == (lease, offset + len(content))


@pytest.mark.parametrize("text", ["", "1", "1-", "-1", "a-1", "1-1-1", "1--1", "١-1", "9" * 30 + "-" + "9" * 30])
def test_what_is_no_id_of_ours_begins_anew(text: str) -> None:
    assert parse_event_id(text) == (0, 0)


@given(st.text(max_size=60))
def test_no_id_breaks_the_stream(text: str) -> None:
    lease, offset = parse_event_id(text)
    assert lease >= 0 and offset >= 0
