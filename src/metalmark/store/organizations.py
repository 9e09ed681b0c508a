"""Organizations: who owns projects. One without any member is unclaimed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, and_, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from metalmark.model import OrganizationRole, ResourceId, ResourceName, Slug, new_id, slug_for
from metalmark.store.changes import given
from metalmark.store.page import Page
from metalmark.store.projects import hide_project
from metalmark.store.selection import EVERYTHING, Selection, is_called, selected_rows
from metalmark.store.slugs import insert_with_slug
from metalmark.store.tables import organization_roles, organizations, projects


@dataclass(frozen=True, kw_only=True)
class OrganizationRecord:
    """An organization."""

    id: UUID
    name: ResourceName
    slug: Slug
    created: datetime
    modified: datetime
    claimed: datetime | None
    """When its oldest member became one; None while it has none."""


_claimed = (
    select(func.min(organization_roles.c.created))
    .where(organization_roles.c.organization_id == organizations.c.id)
    .scalar_subquery()
    .label("claimed")
)
_there = organizations.c.deleted.is_(None)


def _organization(row: Row[Any]) -> OrganizationRecord:
    fields = row._mapping  # noqa: SLF001  how SQLAlchemy spells its public mapping
    return OrganizationRecord(
        id=fields["id"],
        name=ResourceName(fields["name"]),
        slug=Slug(fields["slug"]),
        created=fields["created"],
        modified=fields["modified"],
        claimed=fields["claimed"],
    )


async def create_organization(
    connection: AsyncConnection,
    *,
    name: ResourceName,
    now: datetime,
    slug: Slug | None = None,
    leader_id: UUID | None = None,
) -> OrganizationRecord:
    """Make an organization and its leader; without one it is unclaimed."""
    identifier = new_id()
    values = {"id": identifier, "name": name, "created": now, "modified": now}
    await insert_with_slug(connection, organizations, slug=slug_for(name, slug), values=values)
    if leader_id is not None:
        await connection.execute(
            insert(organization_roles).values(
                organization_id=identifier,
                user_id=leader_id,
                role=OrganizationRole.LEADER.value,
                created=now,
                modified=now,
            )
        )
    found = await find_organization(connection, identifier)
    assert found is not None, "it was inserted in this transaction"
    return found


async def find_organization(connection: AsyncConnection, identifier: ResourceId) -> OrganizationRecord | None:
    """Return the organization of a UUID or slug, unless it is deleted."""
    named = is_called(organizations, identifier)
    row = (await connection.execute(select(organizations, _claimed).where(and_(named, _there)))).one_or_none()
    return None if row is None else _organization(row)


async def list_organizations(
    connection: AsyncConnection, *, page: Page, member_id: UUID | None = None, wanted: Selection = EVERYTHING
) -> tuple[tuple[OrganizationRecord, ...], int]:
    """Return a page of organizations, those of one member only if given, and how many match."""
    query = select(organizations, _claimed).where(_there)
    if member_id is not None:
        mine = select(organization_roles.c.organization_id).where(organization_roles.c.user_id == member_id)
        query = query.where(organizations.c.id.in_(mine))
    rows, total = await selected_rows(connection, query, organizations, wanted, page)
    return tuple(_organization(row) for row in rows), total


async def update_organization(
    connection: AsyncConnection,
    *,
    organization_id: UUID,
    now: datetime,
    name: ResourceName | None = None,
    slug: Slug | None = None,
) -> OrganizationRecord | None:
    """Change an organization, None leaving a field, and return what it is then; None when there is none.

    Raises:
        Conflict: The slug is taken.
    """
    named = and_(organizations.c.id == organization_id, _there)
    values = given(name=name, slug=slug)
    await connection.execute(update(organizations).where(named).values(**values, modified=now))
    return await find_organization(connection, organization_id)


async def hide_organization(connection: AsyncConnection, *, organization_id: UUID, now: datetime) -> bool:
    """Delete an organization and its projects softly: nobody finds them, and their names and slugs are free.

    Returns:
        Whether there was one.
    """
    named = and_(organizations.c.id == organization_id, _there)
    values = {"name": f"Deleted {organization_id}", "slug": f"deleted-{organization_id}"}
    done = await connection.execute(update(organizations).where(named).values(**values, deleted=now, modified=now))
    owned = select(projects.c.id).where(
        and_(projects.c.organization_id == organization_id, projects.c.deleted.is_(None))
    )
    for project_id in (await connection.execute(owned)).scalars().all():
        await hide_project(connection, project_id=project_id, now=now)
    return done.rowcount > 0


async def erase_organization(connection: AsyncConnection, *, organization_id: UUID) -> bool:
    """Delete an organization for good. Its projects have to be gone.

    Returns:
        Whether there was one.

    Raises:
        Conflict: Something still refers to it.
    """
    done = await connection.execute(delete(organizations).where(organizations.c.id == organization_id))
    return done.rowcount > 0
