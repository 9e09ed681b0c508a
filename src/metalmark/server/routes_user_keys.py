"""Keys of users: the credential that programs are given."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from fastapi import APIRouter, Request, Response

from metalmark.model import ApiKey, Forbidden, KeyKind, NotFound
from metalmark.server.account_bodies import created_user_key_body, user_key_body
from metalmark.server.actor import UserActor, Via
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
    create_key,
    find_key,
    list_keys,
    record_act,
    rename_key,
    revoke_key,
)
from metalmark.wire import (
    FOREVER_S,
    ChangeKeyBody,
    CreatedUserKeyBody,
    NewKeyBody,
    ResourceIdField,
    UserKeyBody,
    UuidField,
)

router = APIRouter(prefix="/v0/users/{user}/keys", tags=["user keys"])


def _own_key_id(actor: UserActor) -> UUID | None:
    # Whoever gets hold of a key gets no other by it.
    return actor.key_id if actor.via is Via.KEY else None


async def _key(connection: Connection, actor: UserActor, owner: UUID, key: UUID) -> KeyRecord:
    own = _own_key_id(actor)
    if own is not None and own != key:
        raise Forbidden("a key sees only itself", hint="sign in")
    record = await find_key(connection, Holder.USER, owner_id=owner, key_id=key)
    if record is None:
        raise NotFound("key", key)
    return record


@router.get("", operation_id="user_keys_get", summary="List keys of a user", response_model_exclude_none=True)
async def get_user_keys(
    *,
    user: ResourceIdField,
    actor: CurrentUser,
    context: CurrentContext,
    response: Response,
    page: RequestedPage,
    wanted: WantedNames,
    revoked: RevokedFilter = "false",
) -> list[UserKeyBody]:
    """List keys of a user; a key sees only itself."""
    async with context.store.read() as connection:
        owner = await user_for(connection, actor, user)
        keys, total = await list_keys(
            connection,
            Holder.USER,
            page=page,
            owner_id=owner.id,
            only_id=_own_key_id(actor),
            revoked=revoked == "true",
            wanted=wanted,
        )
    set_total(response, total)
    return [user_key_body(key) for key in keys]


@router.post("", operation_id="user_key_post", status_code=201, summary="Make a key of a user")
async def post_user_key(
    user: ResourceIdField, body: NewKeyBody, actor: CurrentUser, request: Request, context: CurrentContext
) -> CreatedUserKeyBody:
    """Make a key; the answer is the only one that has its text. Not for whoever comes with a key."""
    if actor.via is Via.KEY:
        raise Forbidden("a key makes no keys", hint="sign in, and use the token of that")
    key = ApiKey.new(KeyKind.USER)

    async def work(connection: Connection) -> KeyRecord:
        owner = await user_for(connection, actor, user)
        now = context.clock.now()
        expires = now + timedelta(seconds=body.ttl or FOREVER_S)
        record = await create_key(
            connection, Holder.USER, owner_id=owner.id, key=key, name=body.name, now=now, expires=expires
        )
        act = act_of(request, actor, "user_key.create", "user", owner.id, key=str(record.id), name=record.name)
        await record_act(connection, act, now=now)
        return record

    return created_user_key_body(await context.store.write(work), key)


@router.get("/{key}", operation_id="user_key_get", summary="View a key", response_model_exclude_none=True)
async def get_user_key(
    user: ResourceIdField, key: UuidField, actor: CurrentUser, context: CurrentContext
) -> UserKeyBody:
    """View a key of a user."""
    async with context.store.read() as connection:
        owner = await user_for(connection, actor, user)
        return user_key_body(await _key(connection, actor, owner.id, key))


@router.patch("/{key}", operation_id="user_key_patch", summary="Rename a key", response_model_exclude_none=True)
async def patch_user_key(
    user: ResourceIdField, key: UuidField, body: ChangeKeyBody, actor: CurrentUser, context: CurrentContext
) -> UserKeyBody:
    """Rename a key of a user."""

    async def work(connection: Connection) -> KeyRecord:
        owner = await user_for(connection, actor, user)
        found = await _key(connection, actor, owner.id, key)
        if body.name is None:
            return found
        now = context.clock.now()
        renamed = await rename_key(connection, Holder.USER, owner_id=owner.id, key_id=key, name=body.name, now=now)
        return renamed or found

    return user_key_body(await context.store.write(work))


@router.delete("/{key}", operation_id="user_key_delete", status_code=204, summary="Revoke a key")
async def delete_user_key(
    user: ResourceIdField, key: UuidField, actor: CurrentUser, request: Request, context: CurrentContext
) -> None:
    """Revoke a key of a user, for ever."""

    async def work(connection: Connection) -> None:
        owner = await user_for(connection, actor, user)
        found = await _key(connection, actor, owner.id, key)
        now = context.clock.now()
        await revoke_key(connection, Holder.USER, owner_id=owner.id, key_id=found.id, now=now)
        act = act_of(request, actor, "user_key.revoke", "user", owner.id, key=str(key), name=found.name)
        await record_act(connection, act, now=now)

    await context.store.write(work)
