"""What is around every request: its id, the client's address, headers of the answer, a line of log, a last resort."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from metalmark.server.client_address import client_address, is_within, parse_address
from metalmark.server.config import ServerSection
from metalmark.server.errors import error_response
from metalmark.server.metrics import Metrics
from metalmark.system import Clock

_ALWAYS: Mapping[str, str] = {
    "access-control-allow-origin": "*",
    "access-control-expose-headers": "X-Request-Id, X-Total-Count, Link, Docker-Content-Digest, OCI-Filters-Applied",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
}
_UNLESS_SET: Mapping[str, str] = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
}
_PREFLIGHT: Mapping[str, str] = {
    "access-control-allow-methods": "GET, POST, PUT, PATCH, DELETE, OPTIONS",
    "access-control-allow-headers": "Content-Type, Authorization",
    "access-control-max-age": "86400",
}
_TOTAL = {200: "1", 201: "1", 202: "1", 204: "0"}
_PASSED_ON = frozenset({"forwarded", "via", "x-forwarded-for", "x-real-ip"})
_CLIENT_GONE = 499
"""What logs and metrics have in place of a status that nobody got, as those of other servers do."""
_HSTS = "max-age=31536000"

_log = structlog.get_logger(__name__)


class RequestFrame:
    """The outermost middleware.

    Any page of any site may call the interface, for it takes no cookies: whoever calls has to have a credential, so
    one answer to all preflights does (CORS).

    Args:
        app: The application.
        server: The configured addresses of trusted proxies.
        clock: Where durations are measured.
        metrics: Where requests are counted.
    """

    def __init__(self, app: ASGIApp, *, server: ServerSection, clock: Clock, metrics: Metrics) -> None:
        self.app = app
        self._server = server
        self._clock = clock
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request or a channel from its first byte to its line of log."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        peer = (scope.get("client") or ("127.0.0.1", 0))[0]
        forwarded = ",".join(headers.getlist("x-forwarded-for"))
        request_id = str(uuid4())
        client = client_address(peer, forwarded, self._server.trusted_proxies)
        if is_within(parse_address(peer), self._server.trusted_proxies) and "x-forwarded-proto" in headers:
            secure = headers["x-forwarded-proto"].strip().lower() == "https"
            scope["scheme"] = {"http": ("http", "https"), "websocket": ("ws", "wss")}[scope["type"]][secure]
        # A proxy passed it on that is not trusted, or names no client: then the address is the proxy's own.
        named = bool(forwarded) and is_within(parse_address(peer), self._server.trusted_proxies)
        passed_on = not named and not _PASSED_ON.isdisjoint(headers.keys())
        scope.setdefault("state", {}).update(request_id=request_id, client_address=client, passed_on=passed_on)
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await self._framed(scope, receive, send)

    async def _framed(self, scope: Scope, receive: Receive, send: Send) -> None:
        started_s = self._clock.monotonic_s()
        state = scope["state"]
        status = 0

        async def framed_send(message: Message) -> None:
            nonlocal status
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                status = message["status"]
                self._complete(scope, status, MutableHeaders(scope=message))
            elif message["type"] == "websocket.accept":
                status = 101
                MutableHeaders(scope=message).append("x-request-id", state["request_id"])
            await send(message)

        try:
            if scope["type"] == "http" and scope["method"] == "OPTIONS":
                await JSONResponse(None, headers=dict(_PREFLIGHT))(scope, receive, framed_send)
            else:
                await self.app(scope, receive, framed_send)
        except ClientDisconnect:
            # Nobody is there to be answered, and a connection that breaks is no fault of the server's.
            status = status or _CLIENT_GONE
        except Exception as error:
            if status or scope["type"] != "http":
                # An answer that has begun can only be broken off; uvicorn does that, and logs the reason.
                raise
            await error_response(Request(scope), error)(scope, receive, framed_send)
        finally:
            self._account(scope, status, self._clock.monotonic_s() - started_s)

    def _complete(self, scope: Scope, status: int, headers: MutableHeaders) -> None:
        for name, value in _ALWAYS.items():
            headers[name] = value
        for name, value in _UNLESS_SET.items():
            headers.setdefault(name, value)
        if scope["scheme"] in ("https", "wss"):
            headers["strict-transport-security"] = _HSTS
        if status in _TOTAL:
            headers.setdefault("x-total-count", _TOTAL[status])
        headers["x-request-id"] = scope["state"]["request_id"]

    def _account(self, scope: Scope, status: int, took_s: float) -> None:
        # The query is not logged: links of mails carry tokens in it.
        method = scope.get("method", "WEBSOCKET")
        route = getattr(scope.get("route"), "path", "none")
        self._metrics.count_request(method=method, route=route, status=status, took_s=took_s)
        _log.info(
            "request",
            method=method,
            path=scope["path"][:200],
            status=status,
            took_ms=round(took_s * 1000, 1),
            client=scope["state"]["client_address"],
        )
