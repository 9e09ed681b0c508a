"""Projects: what is measured, who may see it, and whose it is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, and_, bindparam, delete, false, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from metalmark.model import (
    JobStatus,
    OrganizationRole,
    ProjectRole,
    ResourceId,
    ResourceName,
    Slug,
    Visibility,
    new_id,
    slug_for,
)
from metalmark.store.changes import given
from metalmark.store.members import give_project_role
from metalmark.store.page import Page
from metalmark.store.registry_release import release_images
from metalmark.store.selection import EVERYTHING, Selection, is_called, selected_rows
from metalmark.store.slugs import insert_with_slug
from metalmark.store.tables import jobs, organization_roles, project_roles, projects, reports


@dataclass(frozen=True, kw_only=True)
class ProjectRecord:
    """A project."""

    id: UUID
    organization_id: UUID
    name: ResourceName
    slug: Slug
    url: str | None
    visibility: Visibility
    created: datetime
    modified: datetime
    claimed: datetime | None
    """When its organization's oldest member became one; None while that has none."""


@dataclass(frozen=True, kw_only=True)
class ProjectChanges:
    """What of a project is to be different; None leaves a field."""

    name: ResourceName | None = None
    slug: Slug | None = None
    url: str | None = None
    clear_url: bool = False
    """The project has no URL any more."""
    visibility: Visibility | None = None


@dataclass(frozen=True, kw_only=True)
class Sight:
    """Whose eyes see a list of projects; by default a stranger's, who sees the public ones."""

    user_id: UUID | None = None
    """Those where this user has a role, and those of organizations that the user leads, as well."""
    key_project_id: UUID | None = None
    """This one only."""
    everything: bool = False
    """All."""


_claimed = (
    select(func.min(organization_roles.c.created))
    .where(organization_roles.c.organization_id == projects.c.organization_id)
    .scalar_subquery()
    .label("claimed")
)
_there = projects.c.deleted.is_(None)


def _project(row: Row[Any]) -> ProjectRecord:
    fields = row._mapping  # noqa: SLF001  how SQLAlchemy spells its public mapping
    return ProjectRecord(
        id=fields["id"],
        organization_id=fields["organization_id"],
        name=ResourceName(fields["name"]),
        slug=Slug(fields["slug"]),
        url=fields["url"],
        visibility=Visibility(fields["visibility"]),
        created=fields["created"],
        modified=fields["modified"],
        claimed=fields["claimed"],
    )


async def create_project(
    connection: AsyncConnection,
    *,
    organization_id: UUID,
    name: ResourceName,
    now: datetime,
    slug: Slug | None = None,
    url: str | None = None,
    visibility: Visibility = Visibility.PUBLIC,
    maintainer_id: UUID | None = None,
    project_id: UUID | None = None,
) -> ProjectRecord:
    """Make a project, and its maintainer if one is given. There is nothing in it yet.

    Args:
        connection: Of a write.
        organization_id: Whose it is.
        name: Unique within the organization.
        now: The time of day.
        slug: What is tried first; by default that of the name. A suffix is added where it is taken.
        url: Of the project's home.
        visibility: Who may see it.
        maintainer_id: A user.
        project_id: Its identifier, where that has to be a certain one.

    Raises:
        Conflict: The organization has a project of this name.
    """
    identifier = project_id or new_id()
    values = {
        "id": identifier,
        "organization_id": organization_id,
        "name": name,
        "url": url,
        "visibility": visibility.value,
        "created": now,
        "modified": now,
    }
    await insert_with_slug(connection, projects, slug=slug_for(name, slug), values=values)
    if maintainer_id is not None:
        await give_project_role(
            connection, project_id=identifier, user_id=maintainer_id, role=ProjectRole.MAINTAINER, now=now
        )
    found = await find_project(connection, identifier)
    assert found is not None, "it was inserted in this transaction"
    return found


async def find_project(connection: AsyncConnection, identifier: ResourceId) -> ProjectRecord | None:
    """Return the project of a UUID or slug, unless it is deleted."""
    named = is_called(projects, identifier)
    row = (await connection.execute(select(projects, _claimed).where(and_(named, _there)))).one_or_none()
    return None if row is None else _project(row)


@dataclass(frozen=True, kw_only=True)
class ProjectWithRoles:
    """A project, and what a user is there."""

    project: ProjectRecord
    role: ProjectRole | None
    """The user's own in the project; what the organization gives is not in it."""
    organization_role: OrganizationRole | None


@cache
def _with_roles(name: str) -> Select[Any]:
    """Return the query of a project by one of its columns: almost every request asks it, so it is put together once."""
    user_id = bindparam("user_id", type_=projects.c.id.type)
    own = select(project_roles.c.role).where(
        project_roles.c.project_id == projects.c.id, project_roles.c.user_id == user_id
    )
    given_by_organization = select(organization_roles.c.role).where(
        organization_roles.c.organization_id == projects.c.organization_id, organization_roles.c.user_id == user_id
    )
    roles = (
        own.scalar_subquery().label("own_role"),
        given_by_organization.scalar_subquery().label("organization_role"),
    )
    return select(projects, _claimed, *roles).where(projects.c[name] == bindparam("identifier"), _there)


async def find_project_with_roles(
    connection: AsyncConnection, identifier: ResourceId, *, user_id: UUID
) -> ProjectWithRoles | None:
    """Return the project of a UUID or slug with a user's roles, unless it is deleted."""
    query = _with_roles("id" if isinstance(identifier, UUID) else "slug")
    row = (await connection.execute(query, {"identifier": identifier, "user_id": user_id})).one_or_none()
    if row is None:
        return None
    return ProjectWithRoles(
        project=_project(row),
        role=None if row.own_role is None else ProjectRole(row.own_role),
        organization_role=None if row.organization_role is None else OrganizationRole(row.organization_role),
    )


def _of_user(user_id: UUID | None) -> Any:  # noqa: ANN401  SQLAlchemy's condition
    if user_id is None:
        return false()
    led = and_(organization_roles.c.user_id == user_id, organization_roles.c.role == OrganizationRole.LEADER.value)
    return or_(
        projects.c.id.in_(select(project_roles.c.project_id).where(project_roles.c.user_id == user_id)),
        projects.c.organization_id.in_(select(organization_roles.c.organization_id).where(led)),
    )


async def list_projects(
    connection: AsyncConnection,
    *,
    page: Page,
    sight: Sight,
    organization_id: UUID | None = None,
    wanted: Selection = EVERYTHING,
) -> tuple[tuple[ProjectRecord, ...], int]:
    """Return a page of the projects that somebody sees, and how many match."""
    query = select(projects, _claimed).where(_there)
    if sight.key_project_id is not None:
        query = query.where(projects.c.id == sight.key_project_id)
    elif not sight.everything:
        query = query.where(or_(projects.c.visibility == Visibility.PUBLIC.value, _of_user(sight.user_id)))
    if organization_id is not None:
        query = query.where(projects.c.organization_id == organization_id)
    rows, total = await selected_rows(connection, query, projects, wanted, page)
    return tuple(_project(row) for row in rows), total


async def update_project(
    connection: AsyncConnection, *, project_id: UUID, changes: ProjectChanges, now: datetime
) -> ProjectRecord | None:
    """Change a project, and return what it is then; None when there is none.

    Raises:
        Conflict: The name or slug is taken.
    """
    visibility = None if changes.visibility is None else changes.visibility.value
    values = given(name=changes.name, slug=changes.slug, url=changes.url, visibility=visibility)
    if changes.clear_url:
        values["url"] = None
    named = and_(projects.c.id == project_id, _there)
    await connection.execute(update(projects).where(named).values(**values, modified=now))
    return await find_project(connection, project_id)


async def hide_project(connection: AsyncConnection, *, project_id: UUID, now: datetime) -> bool:
    """Delete a project softly: nobody finds it, its keys are void, and its name and slug are free.

    Its reports stay, for whoever keeps books. Its images go: nobody could pull them any more.

    Returns:
        Whether there was one.
    """
    values = {"name": f"Deleted {project_id}", "slug": f"deleted-{project_id}", "deleted": now, "modified": now}
    named = and_(projects.c.id == project_id, _there)
    if (await connection.execute(update(projects).where(named).values(**values))).rowcount == 0:
        return False
    await release_images(connection, project_ids=[project_id], now=now)
    return True


async def erase_project(connection: AsyncConnection, *, project_id: UUID, now: datetime) -> tuple[str, ...]:
    """Delete a project for good, with all that is in it, also one that was deleted softly.

    Returns:
        Keys of the blobs that nothing refers to any more; they go once this is committed.
    """
    of_reports = select(reports.c.results_key).where(reports.c.project_id == project_id)
    of_jobs = select(jobs.c.output_key).where(jobs.c.project_id == project_id)
    keys = [key for query in (of_reports, of_jobs) for key in (await connection.execute(query)).scalars() if key]
    # Reports first: what they name must not go before them, and a cascade gives no order.
    await connection.execute(delete(jobs).where(jobs.c.project_id == project_id))
    await connection.execute(delete(reports).where(reports.c.project_id == project_id))
    await release_images(connection, project_ids=[project_id], now=now)
    await connection.execute(delete(projects).where(projects.c.id == project_id))
    return tuple(keys)


async def projects_of(connection: AsyncConnection, *, organization_id: UUID) -> tuple[UUID, ...]:
    """Return the projects of an organization, those deleted softly too."""
    query = select(projects.c.id).where(projects.c.organization_id == organization_id)
    return tuple((await connection.execute(query)).scalars())


async def unfinished_jobs(connection: AsyncConnection, *, project_id: UUID) -> tuple[UUID, ...]:
    """Return the jobs of a project that are pending, claimed or running."""
    codes = [status.code for status in JobStatus if not status.has_run]
    query = select(jobs.c.id).where(and_(jobs.c.project_id == project_id, jobs.c.status.in_(codes)))
    return tuple((await connection.execute(query)).scalars())
