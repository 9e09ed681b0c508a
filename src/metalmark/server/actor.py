"""Who asks: the credential of a request as a value, and the dependencies that routes demand it with.

A route says what it needs in its parameters: ``CurrentActor`` takes anybody, ``CurrentUser`` a user, ``ServerAdmin`` an
administrator of the server. What an actor may do with one project or organization is ``permission``'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TypeAlias
from uuid import UUID

from fastapi import Depends
from starlette.requests import HTTPConnection

from metalmark.model import Forbidden, Unauthenticated
from metalmark.server.client_address import address_group
from metalmark.server.context import CurrentContext
from metalmark.server.rate_limits import Limited

if TYPE_CHECKING:
    from metalmark.store import UserRecord


class Via(StrEnum):
    """What kind of credential a user came with."""

    SESSION = "session"
    """A token of a sign-in."""
    TOKEN = "token"  # noqa: S105  # the name of a kind of credential, not one
    """An API token of the older kind."""
    KEY = "key"
    """A user key."""


@dataclass(frozen=True, kw_only=True)
class Anonymous:
    """A request without a credential."""


@dataclass(frozen=True, kw_only=True)
class UserActor:
    """A user whose credential is valid and whose account is not locked."""

    user: UserRecord
    via: Via
    key_id: UUID | None = None
    """The key or API token; None for a session."""


@dataclass(frozen=True, kw_only=True)
class ProjectKeyActor:
    """Whoever holds a valid key of a project: that project's developer, and nothing elsewhere."""

    project_id: UUID
    key_id: UUID


Actor: TypeAlias = Anonymous | UserActor | ProjectKeyActor


async def current_actor(connection: HTTPConnection, context: CurrentContext) -> Actor:
    """Return who asks.

    Raises:
        Unauthenticated: There is a credential, and it is malformed, unknown, expired or revoked.
        Forbidden: The user's account is locked.
        TooManyRequests: The caller is over a rate limit.
    """
    from metalmark.server.credentials import authenticate  # noqa: PLC0415  # it makes actors, and so imports this module

    address = address_group(connection.scope["state"]["client_address"])
    try:
        actor = await authenticate(context, connection.headers.get("authorization"))
    except Unauthenticated:
        context.limits.spend(Limited.SIGN_IN_ATTEMPTS, address)
        raise
    if isinstance(actor, Anonymous):
        context.limits.spend(Limited.ADDRESS_REQUESTS, address)
    else:
        context.limits.spend(Limited.USER_REQUESTS, caller_of(actor, address))
    return actor


def caller_of(actor: Actor, address: str) -> str:
    """Return who is counted for what an actor does: the user, the project's key, or the address group of nobody."""
    if isinstance(actor, UserActor):
        return f"user {actor.user.id}"
    if isinstance(actor, ProjectKeyActor):
        return f"key {actor.key_id}"
    return address


CurrentActor = Annotated[Actor, Depends(current_actor)]
"""A route's parameter of this type is who asks, anonymous callers included."""


async def current_user(actor: CurrentActor) -> UserActor:
    """Return the user who asks.

    Raises:
        Unauthenticated: There is no credential, or it is not a user's.
    """
    if isinstance(actor, UserActor):
        return actor
    found = "there is no credential" if isinstance(actor, Anonymous) else "this is the key of a project"
    raise Unauthenticated(found, why="this needs a user's", hint="send `Authorization: Bearer` with a user key")


CurrentUser = Annotated[UserActor, Depends(current_user)]
"""A route's parameter of this type is the user who asks; without one the answer is 401."""


async def server_admin(actor: CurrentUser) -> UserActor:
    """Return the administrator who asks.

    Raises:
        Forbidden: The user is none.
    """
    if actor.user.admin:
        return actor
    raise Forbidden("this needs an administrator of the server")


ServerAdmin = Annotated[UserActor, Depends(server_admin)]
"""A route's parameter of this type is the administrator who asks; without one the answer is 401 or 403."""
