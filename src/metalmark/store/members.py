"""Members of organizations, and their roles there and in projects."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, and_, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from metalmark.model import Conflict, Email, OrganizationRole, ProjectRole, Slug, UserName
from metalmark.store.page import Page
from metalmark.store.selection import EVERYTHING, Selection, selected_rows
from metalmark.store.tables import invites, organization_roles, project_roles, projects, users


@dataclass(frozen=True, kw_only=True)
class MemberRecord:
    """A user as the member of an organization."""

    user_id: UUID
    name: UserName
    slug: Slug
    email: Email
    role: OrganizationRole
    created: datetime
    """When the user became a member."""
    modified: datetime


_of_user = (users.c.id, users.c.name, users.c.slug, users.c.email)
_of_role = (organization_roles.c.role, organization_roles.c.created, organization_roles.c.modified)
_members: Select[Any] = select(*_of_user, *_of_role).join(
    organization_roles, organization_roles.c.user_id == users.c.id
)


def _member(row: Row[Any]) -> MemberRecord:
    return MemberRecord(
        user_id=row.id,
        name=UserName(row.name),
        slug=Slug(row.slug),
        email=Email(row.email),
        role=OrganizationRole(row.role),
        created=row.created,
        modified=row.modified,
    )


def _place(organization_id: UUID, user_id: UUID) -> Any:  # noqa: ANN401  SQLAlchemy's condition
    return and_(organization_roles.c.organization_id == organization_id, organization_roles.c.user_id == user_id)


async def find_organization_role(
    connection: AsyncConnection, *, organization_id: UUID, user_id: UUID
) -> OrganizationRole | None:
    """Return a user's role in an organization."""
    query = select(organization_roles.c.role).where(_place(organization_id, user_id))
    role = (await connection.execute(query)).scalar_one_or_none()
    return None if role is None else OrganizationRole(role)


async def give_project_role(
    connection: AsyncConnection, *, project_id: UUID, user_id: UUID, role: ProjectRole, now: datetime
) -> None:
    """Give a user a role in a project, whatever the role was."""
    named = and_(project_roles.c.project_id == project_id, project_roles.c.user_id == user_id)
    done = await connection.execute(update(project_roles).where(named).values(role=role.value, modified=now))
    if done.rowcount == 0:
        values = {"project_id": project_id, "user_id": user_id, "role": role.value, "created": now, "modified": now}
        await connection.execute(insert(project_roles).values(**values))


async def find_member(connection: AsyncConnection, *, organization_id: UUID, user_id: UUID) -> MemberRecord | None:
    """Return a member of an organization."""
    row = (await connection.execute(_members.where(_place(organization_id, user_id)))).one_or_none()
    return None if row is None else _member(row)


async def list_members(
    connection: AsyncConnection, *, organization_id: UUID, page: Page, wanted: Selection = EVERYTHING
) -> tuple[tuple[MemberRecord, ...], int]:
    """Return a page of the members of an organization, and how many match."""
    query = _members.where(organization_roles.c.organization_id == organization_id)
    rows, total = await selected_rows(connection, query, users, wanted, page)
    return tuple(_member(row) for row in rows), total


async def add_member(
    connection: AsyncConnection, *, organization_id: UUID, user_id: UUID, role: OrganizationRole, now: datetime
) -> None:
    """Make a user a member, or raise the role of one; nobody's role is lowered by this."""
    had = await find_organization_role(connection, organization_id=organization_id, user_id=user_id)
    if had is OrganizationRole.LEADER or had is role:
        return
    if had is None:
        values = {"organization_id": organization_id, "user_id": user_id, "role": role.value}
        await connection.execute(insert(organization_roles).values(**values, created=now, modified=now))
        return
    change = update(organization_roles).where(_place(organization_id, user_id))
    await connection.execute(change.values(role=role.value, modified=now))


async def update_member(
    connection: AsyncConnection, *, organization_id: UUID, user_id: UUID, role: OrganizationRole | None, now: datetime
) -> MemberRecord | None:
    """Change a member's role, None leaving it; None when there is no such member.

    Raises:
        Conflict: The organization would have no leader.
    """
    if role is OrganizationRole.MEMBER:
        await _keep_a_leader(connection, organization_id, user_id)
        await _withdraw_invites(connection, organization_id, user_id)
    values: dict[str, Any] = {"modified": now} if role is None else {"modified": now, "role": role.value}
    await connection.execute(update(organization_roles).where(_place(organization_id, user_id)).values(**values))
    return await find_member(connection, organization_id=organization_id, user_id=user_id)


async def remove_member(connection: AsyncConnection, *, organization_id: UUID, user_id: UUID) -> bool:
    """Take a member out of an organization and out of its projects; return whether there was one.

    Raises:
        Conflict: The organization would have no leader.
    """
    await _keep_a_leader(connection, organization_id, user_id)
    await _withdraw_invites(connection, organization_id, user_id)
    within = select(projects.c.id).where(projects.c.organization_id == organization_id)
    held = and_(project_roles.c.user_id == user_id, project_roles.c.project_id.in_(within))
    await connection.execute(delete(project_roles).where(held))
    done = await connection.execute(delete(organization_roles).where(_place(organization_id, user_id)))
    return done.rowcount > 0


async def _withdraw_invites(connection: AsyncConnection, organization_id: UUID, user_id: UUID) -> None:
    # An invitation that was kept would give back the role that is taken away.
    address = select(users.c.email).where(users.c.id == user_id).scalar_subquery()
    kept = and_(invites.c.organization_id == organization_id, invites.c.email == address, invites.c.accepted.is_(None))
    await connection.execute(delete(invites).where(kept))


async def _keep_a_leader(connection: AsyncConnection, organization_id: UUID, user_id: UUID) -> None:
    # An organization that nobody leads could be claimed by anybody, with all that is private in it.
    led = and_(
        organization_roles.c.organization_id == organization_id,
        organization_roles.c.role == OrganizationRole.LEADER.value,
    )
    leaders = (await connection.execute(select(organization_roles.c.user_id).where(led).limit(2))).scalars().all()
    if leaders == [user_id]:
        hint = "make another member a leader first, or delete the organization"
        raise Conflict("this is the only leader of the organization", field="role", hint=hint)
