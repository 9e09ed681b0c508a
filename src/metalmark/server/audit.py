"""Acts of administration as the audit log keeps them: who asked, from where, in which request."""

from __future__ import annotations

from uuid import UUID

from starlette.requests import HTTPConnection

from metalmark.server.actor import Actor, ProjectKeyActor, UserActor
from metalmark.server.errors import request_id_of
from metalmark.store import Act


def act_of(
    connection: HTTPConnection,
    actor: Actor,
    action: str,
    subject_kind: str,
    subject_id: UUID | None,
    **details: str | int | bool | None,
) -> Act:
    """Return the act that a request is, to be recorded in the write that carries it out.

    Args:
        connection: The request.
        actor: Who asks.
        action: What is done, as ``noun.verb`` (``runner.rotate_key``).
        subject_kind: What it is done to, as the glossary names it.
        subject_id: Which one.
        details: What changes; never a secret.
    """
    kind, actor_id = _identity(actor)
    return Act(
        actor_kind=kind,
        actor_id=actor_id,
        action=action,
        subject_kind=subject_kind,
        subject_id=subject_id,
        address=connection.scope.get("state", {}).get("client_address"),
        request_id=request_id_of(connection) or None,
        details=details,
    )


def _identity(actor: Actor) -> tuple[str, UUID | None]:
    if isinstance(actor, UserActor):
        return ("user_key" if actor.key_id else "user"), actor.user.id
    if isinstance(actor, ProjectKeyActor):
        return "project_key", actor.key_id
    return "anonymous", None
