"""The dependencies with which routes demand who asks.

A route says what it needs in its parameters: ``CurrentActor`` takes anybody, ``CurrentUser`` a user, ``ServerAdmin`` an
administrator of the server.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from metalmark.model import Forbidden, Unauthenticated
from metalmark.server.actor import Actor, Anonymous, UserActor, caller_of
from metalmark.server.client_address import address_group
from metalmark.server.context import CurrentContext
from metalmark.server.credentials import authenticate
from metalmark.server.rate_limits import Limited


async def current_actor(connection: HTTPConnection, context: CurrentContext) -> Actor:
    """Return who asks.

    Raises:
        Unauthenticated: There is a credential, and it is malformed, unknown, expired or revoked.
        Forbidden: The user's account is locked.
        TooManyRequests: The caller is over a rate limit.
    """
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
