"""Frames: whatever the pieces, the same frames come out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalmark.model import ProtocolError
from metalmark.wire import HEADER_BYTES, MAX_PAYLOAD_BYTES, Frame, FrameDecoder, encode

FRAMES = st.lists(
    st.builds(
        lambda kind, stream, payload: Frame(kind=kind, stream=stream, payload=payload),
        st.integers(0, 255),
        st.integers(0, 2**32 - 1),
        st.binary(max_size=50),
    ),
    max_size=6,
)


def test_the_layout_of_a_frame() -> None:
    assert encode(Frame(kind=0x84, stream=0x01020304, payload=b"ab")) == bytes.fromhex("84 04030201 02000000") + b"ab"
    assert HEADER_BYTES == 9


@given(frames=FRAMES, cuts=st.lists(st.integers(1, 20), min_size=1, max_size=40))
def test_frames_survive_any_cutting(frames: list[Frame], cuts: list[int]) -> None:
    data = b"".join(map(encode, frames))
    decoder, found, position, turn = FrameDecoder(), [], 0, 0
    while position < len(data):
        length = cuts[turn % len(cuts)]
        found += list(decoder.feed(data[position : position + length]))
        position, turn = position + length, turn + 1
    assert found == frames
    assert decoder.pending_bytes == 0


@given(frames=FRAMES.filter(bool), missing=st.integers(1, 8))
def test_a_cut_stream_is_told(frames: list[Frame], missing: int) -> None:
    decoder = FrameDecoder()
    found = list(decoder.feed(b"".join(map(encode, frames))[:-missing]))
    assert len(found) < len(frames)
    assert decoder.pending_bytes > 0


@given(data=st.binary(max_size=300))
def test_noise_gives_frames_or_a_protocol_error(data: bytes) -> None:
    decoder = FrameDecoder()
    try:
        found = list(decoder.feed(data))
    except ProtocolError:
        return
    assert b"".join(map(encode, found)) == data[: len(data) - decoder.pending_bytes]


def test_a_length_over_the_bound_is_refused_before_the_payload() -> None:
    with pytest.raises(ProtocolError, match="1048577 bytes"):
        list(FrameDecoder().feed(bytes.fromhex("81 00000000 01001000")))
    with pytest.raises(ProtocolError):
        encode(Frame(kind=1, stream=0, payload=bytes(MAX_PAYLOAD_BYTES + 1)))
    largest = encode(Frame(kind=1, stream=0, payload=bytes(MAX_PAYLOAD_BYTES)))
    assert len(next(FrameDecoder().feed(largest)).payload) == MAX_PAYLOAD_BYTES
