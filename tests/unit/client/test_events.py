from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalmark.client.events import MAX_EVENT_BYTES, EventParser, ServerEvent
from metalmark.model import ProtocolError

STREAM = (
    "\ufeff: a comment\r\nevent: output\r\nid: 7\r\ndata: first\r\ndata:  second\r\n\r\n"
    "data:third\n\nevent: nothing\n\nretry: 1500\rdata\rid: 8\r\rid\ndata: ü\n\ndata: broken off"
)
EVENTS = [
    ServerEvent(kind="output", data="first\n second", id="7"),
    ServerEvent(kind="message", data="third", id="7"),
    ServerEvent(kind="message", data="", id="8"),
    ServerEvent(kind="message", data="ü", id=""),
]


@given(st.lists(st.integers(0, len(STREAM.encode())), max_size=8))
def test_pieces_do_not_matter(cuts: list[int]) -> None:
    raw = STREAM.encode()
    edges = sorted({0, len(raw), *cuts})
    parser = EventParser()
    found = [event for start, end in pairwise(edges) for event in parser.feed(raw[start:end])]
    assert found == EVENTS
    assert parser.retry_s == 1.5


@given(st.binary(max_size=200))
def test_any_bytes_are_taken(raw: bytes) -> None:
    list(EventParser().feed(raw))


def test_event_without_an_end_is_bounded() -> None:
    for line in (b"x" * (MAX_EVENT_BYTES + 1), b"data: " + b"x" * MAX_EVENT_BYTES + b"\n"):
        with pytest.raises(ProtocolError):
            list(EventParser().feed(line))
