from __future__ import annotations

from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from metalmark.runner.live_tail import LiveTail
from metalmark.wire import CHUNK_MAX_BYTES, CHUNKS_MAX

Stream = Literal["stdout", "stderr"]


def bytes_of(tail: LiveTail, offset: int) -> tuple[int, bytes]:
    """Read up to the end, and say where it began."""
    found = b""
    begin = None
    while (section := tail.read(offset)) is not None:
        begin = section.offset if begin is None else begin
        assert section.size_bytes == sum(len(chunk.data) for chunk in section.chunks)
        found += b"".join(chunk.data for chunk in section.chunks)
        offset = section.offset + section.size_bytes
    return (tail.start_offset if begin is None else begin), found


def test_chunks_say_stream_and_iteration() -> None:
    tail = LiveTail()
    tail.write(b"one", iteration=1, stream="stdout")
    tail.write(b"two", iteration=1, stream="stdout")
    tail.write(b"bad", iteration=1, stream="stderr")
    tail.write(b"three", iteration=2, stream="stdout")
    section = tail.read(0)
    assert section is not None
    assert [(c.iteration, c.stream, c.data) for c in section.chunks] == [
        (1, "stdout", b"onetwo"),
        (1, "stderr", b"bad"),
        (2, "stdout", b"three"),
    ]
    assert tail.read(14) is None
    assert tail.end_offset == 14


def test_section_fits_a_message() -> None:
    tail = LiveTail()
    for _ in range(CHUNKS_MAX):
        tail.write(b"a", iteration=1, stream="stdout")
        tail.write(b"b", iteration=1, stream="stderr")
    section = tail.read(0)
    assert section is not None
    assert len(section.chunks) == CHUNKS_MAX
    tail.write(bytes(2 * 1024 * 1024), iteration=1, stream="stdout")
    section = tail.read(2 * CHUNKS_MAX)
    assert section is not None
    assert section.size_bytes <= 1024 * 1024
    assert all(len(chunk.data) <= CHUNK_MAX_BYTES for chunk in section.chunks)


def test_unread_output_beyond_the_bound_is_dropped_from_its_beginning() -> None:
    tail = LiveTail(limit_bytes=10)
    tail.write(b"0123456789", iteration=1, stream="stdout")
    tail.write(b"abc", iteration=1, stream="stderr")
    assert bytes_of(tail, 0) == (3, b"3456789abc")


def test_closed_tail_takes_nothing_and_counts_on() -> None:
    calls: list[None] = []
    tail = LiveTail(changed=lambda: calls.append(None))
    tail.write(b"abc", iteration=1, stream="stdout")
    tail.close()
    tail.write(b"def", iteration=1, stream="stdout")
    assert tail.read(0) is None
    assert tail.end_offset == 6
    assert len(calls) == 1


@given(
    writes=st.lists(st.tuples(st.binary(max_size=9), st.sampled_from(["stdout", "stderr"]), st.integers(0, 30))),
    limit=st.integers(1, 40),
)
def test_what_is_kept_is_always_the_latest(writes: list[tuple[bytes, Stream, int]], limit: int) -> None:
    tail, printed, forgotten = LiveTail(limit_bytes=limit), b"", 0
    for data, stream, forget in writes:
        tail.write(data, iteration=1, stream=stream)
        printed += data
        tail.forget(forget)
        forgotten = max(forgotten, min(forget, len(printed)))
        begin, found = bytes_of(tail, 0)
        assert begin == max(forgotten, len(printed) - limit, 0)
        assert found == printed[begin:]
