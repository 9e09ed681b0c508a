"""Bounds of a request's body, in bytes and in time."""

from __future__ import annotations

import re

import anyio
from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from metalmark.model import TooLarge
from metalmark.server.config import ServerSection
from metalmark.server.errors import refuse

_STREAMED = re.compile(r"/v0/runners/[^/]+/jobs/[^/]+/output|/v2/.+/blobs/uploads(?:/[^/]+)?", re.ASCII)
"""Paths whose bodies go to storage in pieces: their routes bound the size, and each piece has to come in time."""


class RequestBody:
    """Middleware that ends a request whose body is too large (413) or too slow (408).

    Args:
        app: The application.
        bounds: The configured bounds.
    """

    def __init__(self, app: ASGIApp, bounds: ServerSection) -> None:
        self.app = app
        self._max_bytes = bounds.request_body_max_bytes
        self._timeout_s = bounds.read_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its body bounded."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        streamed = _STREAMED.fullmatch(scope["path"]) is not None
        length = Headers(scope=scope).get("content-length", "0")
        if not streamed and length.isdecimal() and int(length[:20]) > self._max_bytes:
            await refuse(self._too_large(), scope, receive, send)
            return
        deadline = anyio.current_time() + self._timeout_s
        received = 0
        complete = False

        async def bounded() -> Message:
            nonlocal received, complete
            if complete:
                # What comes after the body is the client's leaving, and that may take as long as the answer does.
                return await receive()
            # A piece of a stream has its time from when it is wanted: what its route does before is not the client's.
            left_s = self._timeout_s if streamed else deadline - anyio.current_time()
            with anyio.move_on_after(left_s) as waiting:
                message = await receive()
            if waiting.cancelled_caught:
                raise HTTPException(408, f"the request's body took over {self._timeout_s:g} s")
            received += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if not streamed and received > self._max_bytes:
                raise HTTPException(413, str(self._too_large()))
            return message

        await self.app(scope, bounded, send)

    def _too_large(self) -> TooLarge:
        return TooLarge("the request's body", self._max_bytes)
