"""The registry's token service, and the address where clients look whether there is a registry at all.

Formats: the Docker registry token specification (GET) and its OAuth 2 form (POST).
"""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from metalmark.model import InputError, Unauthenticated
from metalmark.server.actor import Anonymous
from metalmark.server.client_address import address_group
from metalmark.server.context import CurrentContext, ServerContext
from metalmark.server.credentials import authenticate_credential
from metalmark.server.errors import error_body, request_id_of
from metalmark.server.rate_limits import Limited
from metalmark.server.registry_caller import RegistryCaller, registry_caller
from metalmark.server.registry_challenge import TOKEN_PATH
from metalmark.server.registry_scope import parse_scopes
from metalmark.server.registry_token import TTL_S, registry_token
from metalmark.wire import RegistryTokenBody

router = APIRouter(tags=["registry"])

_FORM: dict[str, Any] = {
    "requestBody": {
        "content": {
            "application/x-www-form-urlencoded": {
                "schema": {
                    "type": "object",
                    "required": ["grant_type"],
                    "properties": {
                        "grant_type": {"type": "string", "enum": ["password"]},
                        "username": {"type": "string"},
                        "password": {"type": "string"},
                        "scope": {"type": "string"},
                        "service": {"type": "string"},
                    },
                }
            }
        }
    }
}
_SECURITY: dict[str, Any] = {"security": [{}, {"bearer": []}, {"basic": []}]}
_FIELDS_MAX = 64


@router.get("/v2", include_in_schema=False)
async def ping(request: Request, context: CurrentContext) -> Response:
    """Say that there is a registry, to whoever has a token for it or a key."""
    caller = await _caller(request, context)
    if caller.scopes is None and isinstance(caller.actor, Anonymous):
        raise Unauthenticated("there is no credential", hint="sign in with a key, or take a token of nobody")
    return JSONResponse({})


def _body(context: ServerContext, caller: RegistryCaller, texts: list[str]) -> RegistryTokenBody:
    if caller.actor is None or caller.scopes is not None:
        raise Unauthenticated("a token makes no tokens", hint="send the key")
    token = registry_token(context, caller.actor, parse_scopes(texts))
    return RegistryTokenBody(
        token=token.text,
        access_token=token.text,
        expires_in=TTL_S,
        issued_at=token.issued,
        scope=" ".join(texts) or None,
    )


@router.get(TOKEN_PATH, operation_id="auth_oci_token_get", openapi_extra=_SECURITY)
async def get_token(
    request: Request,
    context: CurrentContext,
    scope: Annotated[list[str] | None, Query(description="`repository:NAME:ACTIONS`; there may be several.")] = None,
) -> RegistryTokenBody:
    """Make a token for the registry. The password is a user's or a project's key; without one it is nobody's.

    It opens what was asked for as far as the key does.
    """
    return _body(context, await _caller(request, context), scope or [])


@router.post(
    TOKEN_PATH, operation_id="auth_oci_token_post", response_model=RegistryTokenBody, openapi_extra=_SECURITY | _FORM
)
async def post_token(request: Request, context: CurrentContext) -> Response | RegistryTokenBody:
    """Make a token for the registry, as OAuth 2 asks for one."""
    try:
        fields = parse_qs((await request.body()).decode(), keep_blank_values=True, max_num_fields=_FIELDS_MAX)
    except ValueError:
        return _refused(request, "invalid_request", "the form is malformed")
    grants = fields.get("grant_type", [])
    if len(grants) != 1:
        return _refused(request, "invalid_request", "`grant_type` is there once")
    if grants[0] != "password":
        return _refused(request, "unsupported_grant_type", "the only `grant_type` is password")
    password = fields.get("password", [])
    if len(password) > 1 or (not any(password) and "authorization" not in request.headers):
        return _refused(request, "invalid_request", "`password` is there once, and it is a key")
    caller = await _of_form(request, context, password[0]) if any(password) else await _caller(request, context)
    try:
        return _body(context, caller, fields.get("scope", []))
    except InputError as error:
        return _refused(request, "invalid_scope", str(error))


async def _caller(request: Request, context: ServerContext) -> RegistryCaller:
    async with context.store.read() as reading:
        return await registry_caller(request, context, reading)


async def _of_form(request: Request, context: ServerContext, password: str) -> RegistryCaller:
    try:
        return RegistryCaller(actor=await authenticate_credential(context, password))
    except Unauthenticated:
        context.limits.spend(Limited.SIGN_IN_ATTEMPTS, address_group(request.state.client_address))
        raise


def _refused(request: Request, code: str, description: str) -> Response:
    body = error_body(request_id_of(request), description)
    return JSONResponse({**body, "error": code, "error_description": body["message"]}, status_code=400)
