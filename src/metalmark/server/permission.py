"""What an actor may do with one project or organization, and how a refusal looks.

What somebody may not see does not exist for them: a private project that is denied gets the answer of one that is not
there.
"""

from __future__ import annotations

from dataclasses import dataclass

from metalmark.model import (
    PROJECT_KEY_PERMISSIONS,
    Forbidden,
    NotFound,
    Permission,
    ResourceId,
    Unauthenticated,
    permitted_in_organization,
    permitted_in_project,
)
from metalmark.server.actor import Actor, Anonymous, ProjectKeyActor, UserActor
from metalmark.store import (
    Connection,
    OrganizationRecord,
    ProjectRecord,
    find_organization,
    find_organization_role,
    find_project,
    find_project_with_roles,
)

PUBLIC = "public"


@dataclass(frozen=True, kw_only=True)
class ProjectAccess:
    """A project, and what somebody may do with it."""

    project: ProjectRecord
    permissions: frozenset[Permission]


async def find_access(connection: Connection, actor: Actor, identifier: ResourceId) -> ProjectAccess | None:
    """Return the project of a UUID or slug and what an actor may do with it; None when there is none."""
    if isinstance(actor, UserActor) and not actor.user.admin:
        found = await find_project_with_roles(connection, identifier, user_id=actor.user.id)
        if found is None:
            return None
        permissions = _public(found.project) | permitted_in_project(found.role, found.organization_role)
        return ProjectAccess(project=found.project, permissions=permissions)
    project = await find_project(connection, identifier)
    if project is None:
        return None
    if isinstance(actor, UserActor):
        return ProjectAccess(project=project, permissions=frozenset(Permission))
    own = isinstance(actor, ProjectKeyActor) and actor.project_id == project.id
    permissions = _public(project) | (PROJECT_KEY_PERMISSIONS if own else frozenset())
    return ProjectAccess(project=project, permissions=permissions)


def _public(project: ProjectRecord) -> frozenset[Permission]:
    return frozenset((Permission.VIEW,)) if project.visibility == PUBLIC else frozenset()


async def project_permissions(connection: Connection, actor: Actor, project: ProjectRecord) -> frozenset[Permission]:
    """Return what an actor may do with a project."""
    found = await find_access(connection, actor, project.id)
    return frozenset() if found is None else found.permissions


async def project_for(
    connection: Connection, actor: Actor, identifier: ResourceId, permission: Permission
) -> ProjectRecord:
    """Return the project that an actor names, for something that the actor may do with it.

    Raises:
        NotFound: There is no such project, or it is private and the actor may not do this.
        Unauthenticated: It is public, and needs more than nobody may do.
        Forbidden: It is public, and needs more than this actor may do.
    """
    return permitted(await find_access(connection, actor, identifier), actor, identifier, permission)


def permitted(
    found: ProjectAccess | None, actor: Actor, identifier: ResourceId, permission: Permission
) -> ProjectRecord:
    """Return the project that was found, for something that the actor may do with it.

    Args:
        found: What `find_access` has found.
        actor: Who asks.
        identifier: As they named it: a refusal must not tell another name of what is hidden.
        permission: For what.

    Raises:
        MetalmarkError: As `project_for`.
    """
    if found is None:
        raise NotFound("project", identifier)
    if permission in found.permissions:
        return found.project
    if found.project.visibility != PUBLIC:
        raise NotFound("project", identifier)
    if isinstance(actor, Anonymous):
        raise Unauthenticated("there is no credential", why=f"this needs the permission to {permission} the project")
    raise Forbidden(f"this needs the permission to {permission} the project", why="the caller does not have it")


async def organization_permissions(
    connection: Connection, actor: UserActor, organization: OrganizationRecord
) -> frozenset[Permission]:
    """Return what a user may do with an organization."""
    if actor.user.admin:
        return frozenset(Permission)
    role = await find_organization_role(connection, organization_id=organization.id, user_id=actor.user.id)
    return permitted_in_organization(role)


async def organization_for(
    connection: Connection, actor: UserActor, identifier: ResourceId, permission: Permission
) -> OrganizationRecord:
    """Return the organization that a user names, for something that the user may do with it.

    Raises:
        NotFound: There is no such organization, or the user is no member of it.
        Forbidden: The user is a member without this permission.
    """
    organization = await find_organization(connection, identifier)
    if organization is None:
        raise NotFound("organization", identifier)
    permitted = await organization_permissions(connection, actor, organization)
    if permission in permitted:
        return organization
    if Permission.VIEW not in permitted:
        raise NotFound("organization", identifier)
    raise Forbidden(f"this needs the permission to {permission} the organization", why="the caller does not have it")
