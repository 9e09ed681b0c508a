"""Invitations by e-mail into an organization. Each is accepted once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, and_, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from metalmark.model import Email, OrganizationRole, new_id
from metalmark.store.tables import invites


@dataclass(frozen=True, kw_only=True)
class InviteRecord:
    """An invitation."""

    id: UUID
    organization_id: UUID
    inviter_id: UUID
    email: Email
    role: OrganizationRole
    created: datetime
    expires: datetime
    accepted: datetime | None


def _invite(row: Row[Any]) -> InviteRecord:
    return InviteRecord(
        id=row.id,
        organization_id=row.organization_id,
        inviter_id=row.inviter_id,
        email=Email(row.email),
        role=OrganizationRole(row.role),
        created=row.created,
        expires=row.expires,
        accepted=row.accepted,
    )


async def create_invite(
    connection: AsyncConnection,
    *,
    organization_id: UUID,
    inviter_id: UUID,
    email: Email,
    role: OrganizationRole,
    now: datetime,
    expires: datetime,
) -> InviteRecord:
    """Keep that somebody is invited."""
    values = {
        "id": new_id(),
        "organization_id": organization_id,
        "inviter_id": inviter_id,
        "email": email,
        "role": role.value,
        "created": now,
        "expires": expires,
    }
    return _invite((await connection.execute(insert(invites).values(**values).returning(invites))).one())


async def find_open_invite(
    connection: AsyncConnection, *, invite_id: UUID, email: Email, now: datetime
) -> InviteRecord | None:
    """Return an invitation of an address, unless it is accepted or expired."""
    named = and_(invites.c.id == invite_id, invites.c.email == email, invites.c.organization_id.is_not(None))
    still = and_(invites.c.accepted.is_(None), invites.c.expires > now)
    row = (await connection.execute(select(invites).where(and_(named, still)))).one_or_none()
    return None if row is None else _invite(row)


async def accept_invite(connection: AsyncConnection, *, invite_id: UUID, now: datetime) -> bool:
    """Say that an invitation is accepted; return whether it still could be."""
    still = and_(invites.c.id == invite_id, invites.c.accepted.is_(None))
    return (await connection.execute(update(invites).where(still).values(accepted=now))).rowcount > 0
