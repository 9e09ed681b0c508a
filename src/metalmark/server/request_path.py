"""The path of a request as routes see it."""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Receive, Scope, Send

from metalmark.model import InputError
from metalmark.server.errors import refuse

_SLASHES = re.compile(r"/{2,}")


def plain_path(path: str) -> str:
    """Return a decoded path with its slashes collapsed and none at its end.

    Raises:
        InputError: A segment is ``.`` or ``..``.
    """
    if any(segment in (".", "..") for segment in path.split("/")):
        raise InputError("path", path[:100], "segments of dots are not resolved")
    return _SLASHES.sub("/", path).rstrip("/") or "/"


class RequestPath:
    """Middleware that gives the application plain paths."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on under its plain path, or refuse it."""
        if scope["type"] in ("http", "websocket"):
            try:
                scope["path"] = plain_path(scope["path"])
            except InputError as error:
                await refuse(error, scope, receive, send)
                return
        await self.app(scope, receive, send)
