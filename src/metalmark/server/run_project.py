"""The project that a run goes to: found, made or claimed, as who submits it may."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from starlette.requests import HTTPConnection

from metalmark.model import (
    Forbidden,
    InputError,
    NotFound,
    OrganizationRole,
    Permission,
    ResourceId,
    Slug,
    Unauthenticated,
    Visibility,
)
from metalmark.server.actor import Actor, Anonymous, ProjectKeyActor, UserActor
from metalmark.server.audit import act_of
from metalmark.server.permission import find_access, organization_permissions, permitted
from metalmark.server.run_context import RunContext
from metalmark.store import (
    Connection,
    ProjectRecord,
    add_member,
    create_organization,
    create_personal_organization,
    create_project,
    find_organization,
    find_project,
    free_project_name,
    record_act,
)


@dataclass(frozen=True, kw_only=True)
class RunTarget:
    """Where a run is to go, and who sends it."""

    request: HTTPConnection
    actor: Actor
    project: ResourceId | None
    """As the run names it."""
    image_project: ResourceId | None
    """As the name of its image does."""
    context: RunContext | None

    @property
    def identifier(self) -> ResourceId:
        """The project's.

        Raises:
            InputError: Nothing says which it is.
        """
        named = self.project or self.image_project or (self.context.project_slug if self.context is not None else None)
        if named is None:
            why = "neither it, nor the image, nor the run's context names a project"
            raise InputError("project", "missing", why, hint="name the project")
        return named


async def find_target(connection: Connection, target: RunTarget, *, anonymous: bool) -> ProjectRecord | None:
    """Return the project of a run, or None when it is one that the caller may make.

    Args:
        connection: Of any transaction.
        target: Where the run is to go.
        anonymous: Whether this server takes runs of nobody.

    Raises:
        Unauthenticated: It needs an account, or the key is another project's.
        Forbidden: The caller may not submit to it.
        NotFound: There is no such project, or it is hidden from the caller.
        InputError: Nothing says which project it is.
    """
    if isinstance(target.actor, ProjectKeyActor):
        return await _of_key(connection, target, target.actor)
    nobody = isinstance(target.actor, Anonymous)
    if nobody and not anonymous:
        raise Unauthenticated("there is no credential", why="this server takes no runs of strangers")
    found = await find_access(connection, target.actor, target.identifier)
    if found is not None:
        if found.project.claimed is None and found.project.visibility is Visibility.PUBLIC:
            return found.project
        return permitted(found, target.actor, target.identifier, Permission.CREATE)
    if isinstance(target.identifier, UUID):
        raise NotFound("project", target.identifier)
    if target.context is None:
        why = "there is no such project, and no context to name a new one"
        raise InputError("project", str(target.identifier), why, hint="make the project first")
    if nobody:
        await _unclaimed_organization(connection, target.identifier)
    return None


async def _of_key(connection: Connection, target: RunTarget, actor: ProjectKeyActor) -> ProjectRecord:
    named = target.project or target.image_project
    found = None if named is None else await find_project(connection, named)
    if found is not None and found.id != actor.project_id and found.visibility is not Visibility.PUBLIC:
        # What others keep private is not there.
        found = None
    if target.project is not None and found is None:
        raise NotFound("project", target.project)
    if found is not None and found.id != actor.project_id:
        raise Unauthenticated("the key is another project's", hint="use a key of the project that is named")
    own = found or await find_project(connection, actor.project_id)
    if own is None:
        raise Unauthenticated("the project of this key is deleted")
    return own


async def open_target(connection: Connection, target: RunTarget, *, anonymous: bool, now: datetime) -> ProjectRecord:
    """Return the project of a run; make it when there is none, and claim it for the user when it is nobody's.

    Raises:
        MetalmarkError: As `find_target`.
    """
    project = await find_target(connection, target, anonymous=anonymous)
    if project is None:
        return await _made(connection, target, now=now)
    if project.claimed is None and isinstance(target.actor, UserActor):
        await add_member(
            connection,
            organization_id=project.organization_id,
            user_id=target.actor.user.id,
            role=OrganizationRole.LEADER,
            now=now,
        )
        act = act_of(target.request, target.actor, "organization.claim", "organization", project.organization_id)
        await record_act(connection, act, now=now)
        return await find_project(connection, project.id) or project
    return project


async def _made(connection: Connection, target: RunTarget, *, now: datetime) -> ProjectRecord:
    slug = target.identifier
    assert isinstance(slug, Slug), "find_target makes nothing of a UUID"
    assert target.context is not None, "find_target makes nothing without a context"
    name, maintainer, project_id = target.context.project_name, None, None
    if isinstance(target.actor, UserActor):
        organization_id = await _personal_organization(connection, target.actor, now=now)
        maintainer = target.actor.user.id
    else:
        found = await _unclaimed_organization(connection, slug)
        if found is None:
            organization = await create_organization(connection, name=name, slug=slug, now=now)
            found = project_id = organization.id
        organization_id = found
    project = await create_project(
        connection,
        organization_id=organization_id,
        name=await free_project_name(connection, organization_id=organization_id, name=name),
        slug=slug,
        maintainer_id=maintainer,
        project_id=project_id,
        now=now,
    )
    act = act_of(target.request, target.actor, "project.create", "project", project.id, slug=str(project.slug))
    await record_act(connection, act, now=now)
    return project


async def _unclaimed_organization(connection: Connection, slug: ResourceId) -> UUID | None:
    organization = await find_organization(connection, slug)
    if organization is None:
        return None
    if organization.claimed is not None:
        raise Unauthenticated(f"the organization {slug} has members", why="its projects are made by them")
    return organization.id


async def _personal_organization(connection: Connection, actor: UserActor, *, now: datetime) -> UUID:
    organization = await find_organization(connection, actor.user.id)
    if organization is None:
        await create_personal_organization(connection, user=actor.user, now=now)
    elif Permission.CREATE not in await organization_permissions(connection, actor, organization):
        raise Forbidden("the caller may make no projects in the organization of their own name")
    return actor.user.id
