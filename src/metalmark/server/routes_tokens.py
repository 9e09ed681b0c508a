"""API tokens of the older kind. None are made any more; those that there are can be seen, renamed and revoked."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter, Request, Response

from metalmark.model import Forbidden, NotFound
from metalmark.server.account_bodies import token_body
from metalmark.server.audit import act_of
from metalmark.server.caller import CurrentUser
from metalmark.server.context import CurrentContext
from metalmark.server.name_lists import RevokedFilter, WantedNames
from metalmark.server.paging import RequestedPage, set_total
from metalmark.server.routes_users import user_for
from metalmark.store import (
    Connection,
    Holder,
    KeyRecord,
    find_key,
    list_keys,
    record_act,
    rename_key,
    revoke_key,
)
from metalmark.wire import ChangeKeyBody, NewKeyBody, ResourceIdField, TokenBody, UuidField

router = APIRouter(prefix="/v0/users/{user}/tokens", tags=["tokens"])


async def _token(connection: Connection, owner: UUID, token: UUID) -> KeyRecord:
    record = await find_key(connection, Holder.TOKEN, owner_id=owner, key_id=token)
    if record is None:
        raise NotFound("token", token)
    return record


@router.get("", operation_id="user_tokens_get", summary="List tokens of a user", response_model_exclude_none=True)
async def get_tokens(
    *,
    user: ResourceIdField,
    actor: CurrentUser,
    context: CurrentContext,
    response: Response,
    page: RequestedPage,
    wanted: WantedNames,
    revoked: RevokedFilter = "false",
) -> list[TokenBody]:
    """List tokens of a user."""
    async with context.store.read() as connection:
        owner = await user_for(connection, actor, user)
        tokens, total = await list_keys(
            connection, Holder.TOKEN, page=page, owner_id=owner.id, revoked=revoked == "true", wanted=wanted
        )
    set_total(response, total)
    return [token_body(token) for token in tokens]


@router.post("", operation_id="user_token_post", status_code=201, summary="Make a token (refused)")
async def post_token(user: ResourceIdField, body: NewKeyBody, actor: CurrentUser) -> TokenBody:  # noqa: ARG001  read and refused
    """Refuse: tokens are not made any more."""
    raise Forbidden("tokens are not made any more", hint="make a user key: metalmark key create")


@router.get("/{token}", operation_id="user_token_get", summary="View a token", response_model_exclude_none=True)
async def get_token(user: ResourceIdField, token: UuidField, actor: CurrentUser, context: CurrentContext) -> TokenBody:
    """View a token of a user."""
    async with context.store.read() as connection:
        owner = await user_for(connection, actor, user)
        return token_body(await _token(connection, owner.id, token))


@router.patch("/{token}", operation_id="user_token_patch", summary="Rename a token", response_model_exclude_none=True)
async def patch_token(
    user: ResourceIdField, token: UuidField, body: ChangeKeyBody, actor: CurrentUser, context: CurrentContext
) -> TokenBody:
    """Rename a token of a user."""

    async def work(connection: Connection) -> KeyRecord:
        owner = await user_for(connection, actor, user)
        found = await _token(connection, owner.id, token)
        if body.name is None:
            return found
        now = context.clock.now()
        renamed = await rename_key(connection, Holder.TOKEN, owner_id=owner.id, key_id=token, name=body.name, now=now)
        return renamed or found

    return token_body(await context.store.write(work))


@router.delete("/{token}", operation_id="user_token_delete", status_code=204, summary="Revoke a token")
async def delete_token(
    user: ResourceIdField, token: UuidField, actor: CurrentUser, request: Request, context: CurrentContext
) -> None:
    """Revoke a token of a user, for ever."""

    async def work(connection: Connection) -> None:
        owner = await user_for(connection, actor, user)
        found = await _token(connection, owner.id, token)
        now = context.clock.now()
        await revoke_key(connection, Holder.TOKEN, owner_id=owner.id, key_id=found.id, now=now)
        act = act_of(request, actor, "token.revoke", "user", owner.id, token=str(token), name=found.name)
        await record_act(connection, act, now=now)

    await context.store.write(work)
