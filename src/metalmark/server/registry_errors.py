"""Errors of the registry as its clients know them.

A body has the ``errors`` of the OCI distribution specification 1.1, "Error Codes", and beside them what all errors of
this server have, so that either kind of client finds what it reads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from starlette.requests import HTTPConnection

from metalmark.model import (
    Conflict,
    InputError,
    NotFound,
    StableError,
    printable,
)
from metalmark.server.registry_challenge import TOKEN_PATH, registry_challenge, wants_wider_token

_PATH = re.compile(r"/v2(/.*)?", re.DOTALL)
_BY_STATUS: Mapping[int, str] = {
    401: "UNAUTHORIZED",
    403: "DENIED",
    404: "UNSUPPORTED",
    405: "UNSUPPORTED",
    413: "SIZE_INVALID",
    429: "TOOMANYREQUESTS",
    503: "UNAVAILABLE",
}
_BY_KIND: Mapping[str, str] = {
    "repository": "NAME_UNKNOWN",
    "project": "NAME_UNKNOWN",
    "blob": "BLOB_UNKNOWN",
    "manifest": "MANIFEST_UNKNOWN",
    "upload": "BLOB_UPLOAD_UNKNOWN",
}
_BY_FIELD: Mapping[str, str] = {
    "repository": "NAME_INVALID",
    "path": "NAME_INVALID",
    "digest": "DIGEST_INVALID",
    "tag": "TAG_INVALID",
}
_MESSAGE_CHARACTERS = 500


class RegistryFault(StableError):
    """A request to the registry that cannot be carried out, by a code of the specification.

    Args:
        code: The code, ``DIGEST_INVALID``.
        status: The HTTP status.
        found: What was found. One sentence without a full stop.
        details: What the ``detail`` of each error is; one error without any when empty.
        headers: Of the answer.
    """

    def __init__(
        self,
        code: str,
        status: int,
        found: str,
        *,
        details: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(found)
        self.code = code
        self.status = status
        self.details = tuple(details)
        self.headers = dict(headers or {})


def is_of_registry(connection: HTTPConnection) -> bool:
    """Whether a request is to the registry, so that errors have its shape."""
    return _PATH.fullmatch(connection.scope.get("path", "")) is not None


def registry_errors(error: BaseException, status: int, message: str) -> list[dict[str, object]]:
    """Return the errors that a body lists.

    Args:
        error: What happened.
        status: The answer's status.
        message: What it tells people.
    """
    text = printable(message)[:_MESSAGE_CHARACTERS]
    if isinstance(error, RegistryFault) and error.details:
        return [{"code": error.code, "message": text, "detail": dict(detail)} for detail in error.details]
    return [{"code": _code_of(error, status), "message": text}]


def _code_of(error: BaseException, status: int) -> str:
    if isinstance(error, RegistryFault):
        return error.code
    if isinstance(error, NotFound):
        return _BY_KIND.get(error.kind, "NAME_UNKNOWN")
    if isinstance(error, InputError):
        return _BY_FIELD.get(error.field, "NAME_INVALID")
    if isinstance(error, Conflict):
        return "DENIED"
    return _BY_STATUS.get(status, "UNKNOWN")


def registry_headers(connection: HTTPConnection, error: BaseException, status: int) -> dict[str, str]:
    """Return the headers that an error adds to the answer of the registry, or of its token service."""
    if isinstance(error, RegistryFault):
        return error.headers
    if not (is_of_registry(connection) or connection.scope.get("path") == TOKEN_PATH):
        return {}
    context = getattr(connection.scope["app"].state, "context", None) if "app" in connection.scope else None
    if context is not None and (status == 401 or (status == 403 and wants_wider_token(connection))):
        return {"WWW-Authenticate": registry_challenge(connection, context.config)}
    return {}


def status_of_fault(error: BaseException) -> int | None:
    """Return the status of a fault that has its own; None for errors of the general tree."""
    return error.status if isinstance(error, RegistryFault) else None
