"""Reading contents: ranges of headers, and the parts that a range touches."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalmark.model import Digest, new_id
from metalmark.server.registry_content import byte_range, digest_of, read_spans, spans_of
from metalmark.server.registry_errors import RegistryFault
from metalmark.store import Blobs, ContentPart

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("", None),
        ("bytes=0-0", (0, 1)),
        ("bytes=3-", (3, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-30", (0, 10)),
        ("bytes=9-99", (9, 10)),
        ("bytes=-", None),
        ("bytes=5-3", None),
        ("bytes=0-1,3-4", None),
        ("lines=0-1", None),
        ("bytes=a-b", None),
        ("bytes=٣-٤", None),
    ],
)
def test_ranges(header: str | None, expected: tuple[int, int] | None) -> None:
    assert byte_range(header, 10) == expected


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=10-", 10), ("bytes=11-12", 10), ("bytes=-0", 10), ("bytes=0-", 0)]
)
def test_ranges_that_are_not_there(header: str, size: int) -> None:
    with pytest.raises(RegistryFault) as error:
        byte_range(header, size)
    assert (error.value.status, error.value.headers) == (416, {"Content-Range": f"bytes */{size}"})


@given(st.text(max_size=30) | st.from_regex(r"bytes=\d*-\d*", fullmatch=True), st.integers(0, 100))
def test_any_header_is_a_range_within_or_refused(header: str, size: int) -> None:
    try:
        found = byte_range(header, size)
    except RegistryFault as error:
        assert error.status == 416
    else:
        assert found is None or 0 <= found[0] < found[1] <= size


async def stored(blobs: Blobs, *pieces: bytes) -> tuple[ContentPart, ...]:
    parts, position = [], 0
    for piece in pieces:
        part = ContentPart(id=new_id(), position=position, size_bytes=len(piece))
        await blobs.put(part.key, piece)
        parts.append(part)
        position += len(piece)
    return tuple(parts)


async def test_every_range_of_parts() -> None:
    blobs, whole = Blobs.in_memory(), b"abcdefgh"
    parts = await stored(blobs, b"abc", b"d", b"efgh")
    for start in range(len(whole)):
        for end in range(start + 1, len(whole) + 1):
            spans = spans_of(parts, start, end)
            assert sum(len(span) for span in spans) == end - start
            assert b"".join([piece async for piece in read_spans(blobs, spans)]) == whole[start:end]
    assert await digest_of(blobs, parts, "sha512") == Digest.of(whole, "sha512")
    assert await digest_of(blobs, (), "sha256") == Digest.of(b"")
