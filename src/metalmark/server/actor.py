"""Who asks: the credential of a request as a value.

What an actor may do with one project or organization is ``permission``'s; how a route demands one is ``caller``'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias
from uuid import UUID

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


def caller_of(actor: Actor, address: str) -> str:
    """Return who is counted for what an actor does: the user, the project's key, or the address group of nobody."""
    if isinstance(actor, UserActor):
        return f"user {actor.user.id}"
    if isinstance(actor, ProjectKeyActor):
        return f"key {actor.key_id}"
    return address
