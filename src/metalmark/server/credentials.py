"""From the header ``Authorization`` to who asks.

A credential that is not valid is always an error, also where nobody would do: a program that believes it is signed in
must learn that it is not. What is not a bearer credential is none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from uuid import UUID

from metalmark.model import ApiKey, Forbidden, InputError, KeyKind, Unauthenticated, has_jwt_shape
from metalmark.server.actor import Actor, Anonymous, ProjectKeyActor, UserActor, Via
from metalmark.server.context import ServerContext
from metalmark.server.signer import Audience, Claims
from metalmark.store import (
    Connection,
    Holder,
    KeyRecord,
    UserRecord,
    find_held_key,
    find_key_by_digest,
    find_user,
)

_SCHEME = "bearer"


def bearer(header: str | None) -> str | None:
    """Return the credential of a header; None when there is none, or it is of another scheme.

    Raises:
        Unauthenticated: The scheme is there and the credential is not.
    """
    scheme, _, credential = (header or "").strip().partition(" ")
    if scheme.lower() != _SCHEME:
        return None
    if not credential.strip():
        raise Unauthenticated("the credential is empty", hint="send `Authorization: Bearer` with a key or token")
    return credential.strip()


async def authenticate(context: ServerContext, header: str | None) -> Actor:
    """Return who asks.

    Raises:
        Unauthenticated: The credential is malformed, unknown, expired or revoked, or a runner's.
        Forbidden: The user's account is locked.
    """
    credential = bearer(header)
    return Anonymous() if credential is None else await authenticate_credential(context, credential)


async def authenticate_credential(
    context: ServerContext, credential: str, *, connection: Connection | None = None
) -> Actor:
    """Return whose credential it is.

    Args:
        context: The server.
        credential: As it came.
        connection: Of a read that goes on; None to have one for this alone, unless nothing is to be looked up.

    Raises:
        Unauthenticated: It is malformed, unknown, expired or revoked, or a runner's.
        Forbidden: The user's account is locked.
    """
    find = _search(context, credential)
    if connection is not None:
        return await find(connection)
    async with context.store.read() as opened:
        return await find(opened)


def _search(context: ServerContext, credential: str) -> Callable[[Connection], Awaitable[Actor]]:
    """Return what looks a credential up, once it is one that could be known."""
    if has_jwt_shape(credential):
        claims = context.signer.read(credential, Audience.SESSION, Audience.TOKEN)
        return lambda connection: _by_token(context, connection, credential, claims)
    try:
        key = ApiKey.parse(credential)
    except InputError:
        raise Unauthenticated("the credential is malformed", hint="use a user key, a project key or a token") from None
    if key.kind is KeyKind.RUNNER:
        raise Unauthenticated("this is the key of a runner", why="it opens the runner's channel only")
    return lambda connection: _by_key(context, connection, key)


async def _by_key(context: ServerContext, connection: Connection, key: ApiKey) -> Actor:
    holder = Holder.USER if key.kind is KeyKind.USER else Holder.PROJECT
    held = await find_key_by_digest(connection, holder, key.digest)
    if held is None:
        raise Unauthenticated("this key is unknown", hint="make a new one")
    _check(held.key, context)
    if held.user is None:
        return ProjectKeyActor(project_id=held.key.owner_id, key_id=held.key.id)
    if held.user.locked:
        raise Unauthenticated("the account of this key is locked", hint="ask an administrator of the server")
    return UserActor(user=held.user, via=Via.KEY, key_id=held.key.id)


async def _by_token(context: ServerContext, connection: Connection, token: str, claims: Claims) -> Actor:
    if claims.audience is Audience.TOKEN:
        digest = hashlib.sha256(token.encode()).hexdigest()
        held = await find_key_by_digest(connection, Holder.TOKEN, digest)
        if held is None:
            raise Unauthenticated("this token is unknown", hint="make a user key")
        _check(held.key, context)
        return _user_actor(held.user, held.key)
    actor = _user_actor(await find_user(connection, claims.subject_id), None)
    check_epoch(claims, actor.user)
    return actor


async def recall(
    context: ServerContext, connection: Connection, holder: Holder | None, *, owner_id: UUID, key_id: UUID | None
) -> Actor:
    """Return who a token stands for that was made from a credential, if that is still good.

    Args:
        context: The server.
        connection: Of a read.
        holder: What kind of key or token the credential was; None for a sign-in.
        owner_id: Its user or project.
        key_id: Which it was; None for a sign-in.

    Raises:
        Unauthenticated: It is revoked or has expired, or its owner is gone.
        Forbidden: The user's account is locked.
    """
    if holder is None or key_id is None:
        return _user_actor(await find_user(connection, owner_id), None)
    held = await find_held_key(connection, holder, owner_id=owner_id, key_id=key_id)
    if held is None:
        raise Unauthenticated("the key of this token is gone", hint="sign in again")
    _check(held.key, context)
    if holder is Holder.PROJECT:
        return ProjectKeyActor(project_id=owner_id, key_id=held.key.id)
    actor = _user_actor(held.user, held.key)
    return replace(actor, via=Via.KEY) if holder is Holder.USER else actor


def check_epoch(claims: Claims, user: UserRecord) -> None:
    """Refuse a sign-in, or the confirmation of one, that was ended with all others of its user.

    Raises:
        Unauthenticated: It was.
    """
    if claims.epoch != user.session_epoch:
        raise Unauthenticated("this sign-in was ended", hint="sign in again")


def _user_actor(user: UserRecord | None, record: KeyRecord | None) -> UserActor:
    if user is None:
        raise Unauthenticated("the account of this token is gone", hint="sign up again")
    if user.locked:
        raise Forbidden("this account is locked", hint="ask an administrator of the server")
    if record is None:
        return UserActor(user=user, via=Via.SESSION)
    return UserActor(user=user, via=Via.TOKEN, key_id=record.id)


def _check(record: KeyRecord, context: ServerContext) -> None:
    if record.revoked is not None:
        raise Unauthenticated("this credential is revoked", hint="make a new one")
    if not record.valid_at(context.clock.now()):
        raise Unauthenticated("this credential has expired", hint="make a new one")
