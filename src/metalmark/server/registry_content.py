"""Reading what the registry holds: the parts of a content one after the other, or a range of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from metalmark.model import Digest, NotFound
from metalmark.server.registry_errors import RegistryFault
from metalmark.store import Blobs, ContentPart
from metalmark.system import in_thread

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


def byte_range(header: str | None, size_bytes: int) -> tuple[int, int] | None:
    """Return the first offset and the one after the last of a header ``Range`` (RFC 9110, section 14.2).

    Several ranges, or other units, are no ranges: the whole is an answer to those that every client takes.

    Raises:
        RegistryFault: Nothing of the range is there.
    """
    match = _RANGE.fullmatch((header or "").strip())
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        start, end = max(0, size_bytes - int(last)), size_bytes
    else:
        start, end = int(first), min(int(last) + 1, size_bytes) if last else size_bytes
        if last and int(last) < int(first):
            return None
    if start >= size_bytes or start >= end:
        headers = {"Content-Range": f"bytes */{size_bytes}"}
        raise RegistryFault(
            "SIZE_INVALID", 416, f"there are {size_bytes} bytes, and none in this range", headers=headers
        )
    return start, end


@dataclass(frozen=True, kw_only=True)
class Span:
    """Some of a part."""

    key: str
    """Where the part is in the storage."""
    start: int
    """Offset in it of the first byte."""
    end: int
    """Offset after the last byte; greater."""

    def __len__(self) -> int:
        return self.end - self.start


def spans_of(parts: Sequence[ContentPart], start: int, end: int | None) -> tuple[Span, ...]:
    """Return what of which part a range of a content is, in order; None for its end."""
    spans = []
    for part in parts:
        inside = max(start, part.position) - part.position
        upto = (part.end if end is None else min(end, part.end)) - part.position
        if inside < upto:
            spans.append(Span(key=part.key, start=inside, end=upto))
    return tuple(spans)


async def read_spans(blobs: Blobs, spans: Sequence[Span]) -> AsyncGenerator[bytes, None]:
    """Yield the bytes of some spans, one after the other.

    Raises:
        NotFound: A part is missing, or shorter than it was.
        StoreUnavailable: The storage cannot be read.
    """
    for span in spans:
        left = len(span)
        async for piece in blobs.stream(span.key, start=span.start, end=span.end):
            left -= len(piece)
            yield piece
        if left:
            raise NotFound("blob", span.key)


async def digest_of(
    blobs: Blobs,
    parts: Sequence[ContentPart],
    algorithm: str,
    *,
    paced: Callable[[int], Awaitable[None]] | None = None,
) -> Digest:
    """Return the digest of a content as it is in the storage now.

    Args:
        blobs: The storage.
        parts: Of the content, in their order.
        algorithm: Of the digest.
        paced: Awaited after each piece, with its bytes.

    Raises:
        NotFound: A part is missing.
        StoreUnavailable: The storage cannot be read.
    """
    hasher = hashlib.new(algorithm)
    async for piece in read_spans(blobs, spans_of(parts, 0, None)):
        await in_thread(hasher.update, piece)
        if paced is not None:
            await paced(len(piece))
    return Digest(algorithm, hasher.hexdigest())
