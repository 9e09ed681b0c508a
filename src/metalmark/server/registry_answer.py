"""The answer to who pulls a blob: out of memory when it is small, as files where that can be, else in pieces."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import IO

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from metalmark.model import NotFound
from metalmark.server.file_sending import ZERO_COPY, sends_files
from metalmark.server.registry_content import Span, read_spans, spans_of
from metalmark.store import Blobs, ContentPart

BLOB_TYPE = "application/octet-stream"
_SMALL_BYTES = 128 * 1024
"""Up to this a blob is read in one go."""


class BlobAnswer(Response):
    """Sends a range of a content. Where its first part is missing, nothing is sent and the error goes on.

    Args:
        blobs: The storage.
        parts: Of the content.
        start: Offset of the first byte.
        end: Offset after the last byte.
        status: 200 or 206.
        headers: Those of the answer but for its length.
        missing: Awaited when bytes turn out to be missing, before the error goes on.
    """

    def __init__(
        self,
        blobs: Blobs,
        parts: Sequence[ContentPart],
        *,
        start: int,
        end: int,
        status: int,
        headers: Mapping[str, str],
        missing: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(None, status, {**headers, "Content-Length": str(end - start)}, BLOB_TYPE)
        self._blobs = blobs
        self._spans = spans_of(parts, start, end)
        self._size_bytes = end - start
        self._missing = missing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it.

        Raises:
            NotFound: A part is missing. When it is not the first one, the answer has begun and is broken off.
            StoreUnavailable: The storage cannot be read.
        """
        try:
            await self._send(scope, receive, send)
        except NotFound:
            await self._missing()
            raise

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._size_bytes <= _SMALL_BYTES:
            await self._send_small(send)
            return
        first = await self._blobs.open_file(self._spans[0].key) if sends_files(scope) else None
        if first is None:
            await self._send_pieces(scope, receive, send)
        else:
            await self._send_files(first, send)

    async def _send_small(self, send: Send) -> None:
        content = b"".join([await self._blobs.get_range(span.key, span.start, span.end) for span in self._spans])
        if len(content) != self._size_bytes:
            raise NotFound("blob", self._spans[-1].key if self._spans else "")
        await self._begin(send)
        await send({"type": "http.response.body", "body": content})

    async def _send_pieces(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(read_spans(self._blobs, self._spans)) as pieces:
            first = await anext(pieces)

            async def all_pieces() -> AsyncGenerator[bytes, None]:
                yield first
                async for piece in pieces:
                    yield piece

            # It looks whether the reader is still there, which what sends files does by itself.
            answer = StreamingResponse(all_pieces(), self.status_code)
            answer.raw_headers = self.raw_headers
            await answer(scope, receive, send)

    async def _send_files(self, first: IO[bytes], send: Send) -> None:
        for number, span in enumerate(self._spans):
            with first if number == 0 else await self._opened(span) as file:
                if os.fstat(file.fileno()).st_size < span.end:
                    raise NotFound("blob", span.key)
                if number == 0:
                    await self._begin(send)
                count = len(span)
                await send({"type": ZERO_COPY, "file": file, "offset": span.start, "count": count, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _begin(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})

    async def _opened(self, span: Span) -> IO[bytes]:
        file = await self._blobs.open_file(span.key)
        assert file is not None, "the storage was a folder a moment ago"
        return file
