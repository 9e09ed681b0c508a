"""What a server answered: a value, or an error with the number of the request."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from metalmark.model import ProtocolError, RequestRefused

JsonValue: TypeAlias = "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"

_SHOWN_BYTES = 200


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A successful answer."""

    status: int
    value: JsonValue
    """The body; None when there is none."""
    total: int | None = None
    """Rows that match a list's filters, whatever page was asked for; None when the server does not say."""
    request_id: str = ""


def parse_json(body: bytes, *, what: str) -> JsonValue:
    """Return the value of a body; an empty one is None.

    Args:
        body: As received.
        what: Request that it answers, for the error.

    Raises:
        ProtocolError: It is not JSON.
    """
    if not body:
        return None
    try:
        value: JsonValue = json.loads(body)
    # Deep nesting ends the parser with a RecursionError.
    except (ValueError, RecursionError):
        shown = body[:_SHOWN_BYTES].decode("utf-8", errors="replace")
        raise ProtocolError(
            f"the answer to {what} is not JSON: {shown!r}",
            why="servers of Metalmark answer with nothing else",
            hint="see whether --host names the server's API, and not its console or a proxy",
        ) from None
    return value


def refusal(
    status: int, body: bytes, *, what: str, header_request_id: str = "", with_credential: bool
) -> RequestRefused:
    """Return the error for an answer of status 400 or more.

    Args:
        status: The HTTP status.
        body: As received; any bytes.
        what: The request, for the error.
        header_request_id: The header ``x-request-id``.
        with_credential: Whether the request carried one.
    """
    said = _error_fields(body)
    return RequestRefused(
        f"the server refused {what} with {status}",
        why=said.get("message", ""),
        hint=_hint(status, with_credential=with_credential),
        status=status,
        request_id=said.get("request_id", header_request_id),
        error_code=said.get("error_code", ""),
    )


def fault_text(status: int, body: bytes, *, header_request_id: str = "") -> str:
    """Return what an answer of status 500 or more says, with the number of the request."""
    said = _error_fields(body)
    message = said.get("message", "")
    number = said.get("request_id", header_request_id)
    return f"the server answered {status}{f': {message}' if message else ''}{f' (request {number})' if number else ''}"


def _error_fields(body: bytes) -> dict[str, str]:
    """Return the fields of an error body; without those that are no text, for any server may have answered."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: value for name, value in found.items() if isinstance(value, str) and value}


def _hint(status: int, *, with_credential: bool) -> str:
    if status == 401:
        return (
            "a user's key or token is needed, not revoked and not expired: `metalmark key create` makes one"
            if with_credential
            else "name a user's key with --key-file, or set METALMARK_API_KEY"
        )
    if status == 403:
        return "another credential may do it, or another role; an administrator or leader gives roles"
    if status == 404:
        return "see what there is with `list`; what a user must not see is not there for that user"
    if status == 429:
        return "too many requests: wait a minute"
    return ""
