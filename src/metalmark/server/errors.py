"""Errors as answers: one place where the error tree becomes a status and a body."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError, ValidationException, WebSocketRequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketState

from metalmark.model import (
    Conflict,
    Forbidden,
    ImageError,
    InputError,
    MetalmarkError,
    NotFound,
    RegistryDenied,
    TooLarge,
    TooManyRequests,
    TransientError,
    Unauthenticated,
    printable,
)
from metalmark.server.registry_errors import is_of_registry, registry_errors, registry_headers, status_of_fault

_STATUS: Mapping[type[MetalmarkError], int] = {
    InputError: 400,
    ImageError: 400,
    RegistryDenied: 400,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    TooLarge: 413,
    TooManyRequests: 429,
    TransientError: 503,
}
"""Answers by type; the first class of an error's ancestry that is here decides, and any other error is a 500."""

INTERNAL = "Internal"
"""``error_code`` of an answer that is the server's own fault."""

_RETRY_AFTER_S = 1
_SHOWN_FAULTS = 8
_MESSAGE_CHARACTERS = 2000
_GIVEN_CHARACTERS = 80

_log = structlog.get_logger(__name__)


def status_of(error: BaseException) -> int:
    """Return the HTTP status that an error is answered with."""
    own = status_of_fault(error)
    if own is not None:
        return own
    return next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 500)


def request_id_of(connection: HTTPConnection) -> str:
    """Return the request's id, a UUID as text; it is in the answer's ``x-request-id`` and in each of its log lines."""
    return str(connection.scope.get("state", {}).get("request_id", ""))


def error_body(request_id: str, message: str, *, error_code: str | None = None) -> dict[str, str]:
    """Return the body of every answer that is an error: ``request_id``, ``message`` and, if set, ``error_code``."""
    body = {"request_id": request_id, "message": printable(message)[:_MESSAGE_CHARACTERS]}
    return body if error_code is None else {**body, "error_code": error_code}


def error_response(connection: HTTPConnection, error: BaseException) -> Response:
    """Return the answer to a request that ended in an error; one that is the server's own fault tells nothing."""
    status = status_of(error)
    request_id = request_id_of(connection)
    if status == 500 or not isinstance(error, MetalmarkError):
        _log.error("request failed", request_id=request_id, exc_info=error)
        text = "the server failed; its log has the reason"
        return _response(connection, error, 500, error_body(request_id, text, error_code=INTERNAL), {})
    message = f"{error}; {error.hint}" if error.hint else str(error)
    headers = {}
    if isinstance(error, TooManyRequests):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    elif isinstance(error, TransientError):
        headers["Retry-After"] = str(_RETRY_AFTER_S)
    elif isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    return _response(connection, error, status, error_body(request_id, message), headers)


def _response(
    connection: HTTPConnection, error: BaseException, status: int, body: dict[str, str], headers: Mapping[str, str]
) -> Response:
    errors = registry_errors(error, status, body["message"]) if is_of_registry(connection) else None
    content = body if errors is None else {"errors": errors, **body}
    return JSONResponse(content, status_code=status, headers={**headers, **registry_headers(connection, error, status)})


def _faults(error: ValidationException) -> str:
    # What a body holds is not repeated: a field may hold a secret. Addresses hold none.
    faults: Sequence[Mapping[str, object]] = error.errors()
    shown = []
    for fault in faults[:_SHOWN_FAULTS]:
        place = fault.get("loc", ())
        where = ".".join(str(part) for part in place) if isinstance(place, (tuple, list)) else str(place)
        given = fault.get("input")
        if where.startswith(("path.", "query.")) and isinstance(given, str):
            where = f"{where} is {given[:_GIVEN_CHARACTERS]!r}"
        shown.append(f"{where}: {str(fault.get('msg', 'not valid')).removeprefix('Value error, ')}")
    if len(faults) > _SHOWN_FAULTS:
        shown.append(f"and {len(faults) - _SHOWN_FAULTS} more")
    return "; ".join(shown)


def _allowed(request: Request) -> str:
    methods: set[str] = set()
    for route in request.app.state.routes:
        match, _ = route.matches(request.scope)
        if match is not Match.NONE:
            methods |= set(getattr(route, "methods", None) or ())
    return ", ".join(sorted(methods))


async def refuse(error: MetalmarkError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request or a handshake with an error before any route has seen it."""
    if scope["type"] == "websocket":
        channel = WebSocket(scope, receive, send)
        await channel.send_denial_response(error_response(channel, error))
    else:
        await error_response(Request(scope), error)(scope, receive, send)


async def _answer(connection: HTTPConnection, response: Response) -> Response:
    if not isinstance(connection, WebSocket):
        return response
    if connection.application_state == WebSocketState.CONNECTING:
        await connection.send_denial_response(response)
    # The framework would send what is returned once more, as if this were a request.
    return None  # type: ignore[return-value]  # the declared type is that of requests alone


async def _on_error(connection: HTTPConnection, error: Exception) -> Response:
    return await _answer(connection, error_response(connection, error))


async def _on_invalid(connection: HTTPConnection, error: Exception) -> Response:
    assert isinstance(error, ValidationException)
    body = error_body(request_id_of(connection), _faults(error))
    return await _answer(connection, JSONResponse(body, status_code=400))


async def _on_http(connection: HTTPConnection, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 405 and isinstance(connection, Request):
        # The framework names the methods of the first route with this path only.
        headers["Allow"] = _allowed(connection)
    body = error_body(request_id_of(connection), str(error.detail))
    return await _answer(connection, _response(connection, error, error.status_code, body, headers))


def install_error_handlers(application: FastAPI) -> None:
    """Make an application answer every error with the one error body."""
    application.add_exception_handler(MetalmarkError, _on_error)
    application.add_exception_handler(RequestValidationError, _on_invalid)
    application.add_exception_handler(WebSocketRequestValidationError, _on_invalid)
    application.add_exception_handler(HTTPException, _on_http)
