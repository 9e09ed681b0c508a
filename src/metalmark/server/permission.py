"""What an actor may do with one project or organization, and how a refusal looks.

What somebody may not see does not exist for them: a private project that is denied gets the answer of one that is not
there.
"""

from __future__ import annotations

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
    find_project_role,
)

PUBLIC = "public"


async def project_permissions(connection: Connection, actor: Actor, project: ProjectRecord) -> frozenset[Permission]:
    """Return what an actor may do with a project."""
    public = frozenset((Permission.VIEW,)) if project.visibility == PUBLIC else frozenset[Permission]()
    if isinstance(actor, ProjectKeyActor):
        return public | (PROJECT_KEY_PERMISSIONS if actor.project_id == project.id else frozenset())
    if isinstance(actor, UserActor):
        if actor.user.admin:
            return frozenset(Permission)
        return public | permitted_in_project(
            await find_project_role(connection, project_id=project.id, user_id=actor.user.id),
            await find_organization_role(connection, organization_id=project.organization_id, user_id=actor.user.id),
        )
    return public


async def project_for(
    connection: Connection, actor: Actor, identifier: ResourceId, permission: Permission
) -> ProjectRecord:
    """Return the project that an actor names, for something that the actor may do with it.

    Raises:
        NotFound: There is no such project, or it is private and the actor may not do this.
        Unauthenticated: It is public, and needs more than nobody may do.
        Forbidden: It is public, and needs more than this actor may do.
    """
    project = await find_project(connection, identifier)
    if project is None:
        raise NotFound("project", identifier)
    if permission in await project_permissions(connection, actor, project):
        return project
    if project.visibility != PUBLIC:
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
