"""Who a request to the registry comes from: a key as Basic or Bearer, a token of the token service, or a runner."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from uuid import UUID

from starlette.requests import HTTPConnection

from metalmark.model import Unauthenticated, has_jwt_shape
from metalmark.server.actor import Actor, Anonymous, caller_of
from metalmark.server.client_address import address_group
from metalmark.server.context import ServerContext
from metalmark.server.credentials import authenticate_credential, bearer
from metalmark.server.pull_token import pull_of
from metalmark.server.rate_limits import Limited
from metalmark.server.registry_scope import Action, RepositoryScope
from metalmark.server.registry_token import holder_of
from metalmark.server.signer import Audience, Pull
from metalmark.store import Connection

_BASIC_MAX_LENGTH = 16 * 1024


@dataclass(frozen=True, kw_only=True)
class RegistryCaller:
    """Who asks, and how far what they came with reaches."""

    actor: Actor | None
    """None for a runner."""
    scopes: tuple[RepositoryScope, ...] | None = None
    """Of a token; None for a credential that is not narrowed."""
    pull: Pull | None = None
    """What a runner may pull."""
    runner: UUID | None = None
    """Which runner, where it is one."""

    def reaches(self, repository: str, action: Action) -> bool:
        """Whether the token that they came with, if they did, is for this."""
        return self.scopes is None or any(scope.opens(repository, action) for scope in self.scopes)


def password_of(header: str | None) -> str | None:
    """Return the password of Basic credentials, whoever it says they are; None where there are none.

    Raises:
        Unauthenticated: They are malformed, or the password is empty.
    """
    scheme, _, encoded = (header or "").strip().partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        # The name may be anything: it is the key that says whose it is.
        text = base64.b64decode(encoded.strip(), validate=True).decode() if len(encoded) <= _BASIC_MAX_LENGTH else ""
    except ValueError:
        text = ""
    password = text.partition(":")[2]
    if not password:
        raise Unauthenticated("there is no password", hint="sign in with a user key or project key as the password")
    return password


async def registry_caller(connection: HTTPConnection, context: ServerContext, reading: Connection) -> RegistryCaller:
    """Return who asks the registry.

    Args:
        connection: The request.
        context: The server.
        reading: Of a read, in which what they ask for is looked up too.

    Raises:
        Unauthenticated: What they came with is malformed, unknown, expired or revoked.
        Forbidden: The user's account is locked.
        TooManyRequests: They are over a rate limit.
    """
    address = address_group(connection.scope["state"]["client_address"])
    header = connection.headers.get("authorization")
    try:
        caller = await _caller(context, reading, header)
    except Unauthenticated:
        context.limits.spend(Limited.SIGN_IN_ATTEMPTS, address)
        raise
    if caller.actor is None or not isinstance(caller.actor, Anonymous):
        # Each runner for itself: one that pulls much must not keep the others from their jobs.
        who = str(caller.runner) if caller.actor is None else caller_of(caller.actor, address)
        context.limits.spend(Limited.REGISTRY_REQUESTS, who)
    else:
        context.limits.spend(Limited.ADDRESS_REQUESTS, address)
    return caller


async def _caller(context: ServerContext, reading: Connection, header: str | None) -> RegistryCaller:
    password = password_of(header)
    if password is not None:
        return RegistryCaller(actor=await authenticate_credential(context, password, connection=reading))
    credential = bearer(header)
    if credential is None:
        return RegistryCaller(actor=Anonymous())
    if has_jwt_shape(credential):
        claims = context.signer.read(credential, *Audience)
        if claims.audience is Audience.RUNNER_PULL:
            pull = await pull_of(context, reading, claims)
            return RegistryCaller(actor=None, pull=pull, runner=claims.subject_id)
        if claims.audience is Audience.REGISTRY:
            actor, scopes = await holder_of(context, reading, claims)
            return RegistryCaller(actor=actor, scopes=scopes)
    return RegistryCaller(actor=await authenticate_credential(context, credential, connection=reading))
