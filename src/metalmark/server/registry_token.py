"""Tokens of the registry's token service: a credential for five minutes, narrowed to what was asked for.

A token never opens more than its credential does. That is looked at with every request, so that whoever is locked out
is out at once; the token itself is no more than a name for the credential, and the scopes.
"""

from __future__ import annotations

from uuid import UUID

from metalmark.model import Unauthenticated
from metalmark.server.actor import Actor, Anonymous, ProjectKeyActor, UserActor, Via
from metalmark.server.context import ServerContext
from metalmark.server.credentials import check_epoch, recall
from metalmark.server.registry_scope import Action, RepositoryScope
from metalmark.server.signer import Audience, Claims, Grant, Pull, SignedToken
from metalmark.store import Connection, Holder

TTL_S = 300
_NOBODY = ""
_SESSION = "session"
_HOLDERS = {Via.KEY: Holder.USER, Via.TOKEN: Holder.TOKEN, Via.SESSION: None}


def registry_token(context: ServerContext, actor: Actor, scopes: tuple[RepositoryScope, ...]) -> SignedToken:
    """Return a token for whoever asks, good for these scopes as far as they may."""
    subject, via, key_id, epoch = _identity(actor)
    access = tuple(Pull(repository=scope.repository, actions=tuple(sorted(scope.actions))) for scope in scopes)
    grant = Grant(via=via, key_id=key_id, access=access)
    return context.signer.sign(Audience.REGISTRY, subject, ttl_s=TTL_S, epoch=epoch, grant=grant)


def _identity(actor: Actor) -> tuple[str, str, UUID | None, int]:
    if isinstance(actor, ProjectKeyActor):
        return str(actor.project_id), Holder.PROJECT.value, actor.key_id, 0
    if isinstance(actor, UserActor):
        holder = _HOLDERS[actor.via]
        return str(actor.user.id), holder.value if holder else _SESSION, actor.key_id, actor.user.session_epoch
    return _NOBODY, _NOBODY, None, 0


async def holder_of(
    context: ServerContext, connection: Connection, claims: Claims
) -> tuple[Actor, tuple[RepositoryScope, ...]]:
    """Return who a token of `registry_token` stands for, and its scopes.

    Raises:
        Unauthenticated: What it was made from is no longer good.
        Forbidden: The user's account is locked.
    """
    grant = claims.grant
    if grant is None:
        raise Unauthenticated("this token is not complete", hint="sign in again")
    scopes = tuple(_scope(part) for part in grant.access)
    if grant.via == _NOBODY:
        return Anonymous(), scopes
    holder = None if grant.via == _SESSION else _holder(grant.via)
    actor = await recall(context, connection, holder, owner_id=claims.subject_id, key_id=grant.key_id)
    if holder is None and isinstance(actor, UserActor):
        check_epoch(claims, actor.user)
    return actor, scopes


def _holder(text: str) -> Holder:
    try:
        return Holder(text)
    except ValueError as error:
        raise Unauthenticated("this token is not complete", hint="sign in again") from error


def _scope(part: Pull) -> RepositoryScope:
    return RepositoryScope(
        repository=part.repository, actions=frozenset(action for action in Action if action in part.actions)
    )
