"""Projects: finding, making, changing and deleting them."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from metalmark.model import Forbidden, Permission, Visibility
from metalmark.server.account_bodies import project_body
from metalmark.server.actor import Actor, ProjectKeyActor, UserActor
from metalmark.server.audit import act_of
from metalmark.server.caller import CurrentActor, CurrentUser
from metalmark.server.context import CurrentContext
from metalmark.server.name_lists import HardFlag, WantedNames
from metalmark.server.paging import RequestedPage, set_total
from metalmark.server.permission import organization_for, project_for, project_permissions
from metalmark.server.project_removal import erase_stopped, forget_blobs, stop_jobs
from metalmark.store import (
    Connection,
    ProjectChanges,
    ProjectRecord,
    Sight,
    create_project,
    hide_project,
    list_projects,
    record_act,
    update_project,
)
from metalmark.wire import AllowedBody, NewProject, ProjectBody, ProjectPatch, ResourceIdField

router = APIRouter(prefix="/v0", tags=["projects"])


def sight_of(actor: Actor) -> Sight:
    """Return which projects an actor sees."""
    if isinstance(actor, ProjectKeyActor):
        return Sight(key_project_id=actor.project_id)
    if isinstance(actor, UserActor):
        return Sight(everything=True) if actor.user.admin else Sight(user_id=actor.user.id)
    return Sight()


@router.get("/projects", operation_id="projects_get", summary="List projects")
async def get_projects(
    *,
    actor: CurrentActor,
    context: CurrentContext,
    response: Response,
    page: RequestedPage,
    wanted: WantedNames,
) -> list[ProjectBody]:
    """List the projects that one sees: public ones, and those of one's own."""
    async with context.store.read() as connection:
        projects, total = await list_projects(connection, page=page, sight=sight_of(actor), wanted=wanted)
    set_total(response, total)
    return [project_body(project) for project in projects]


@router.get(
    "/organizations/{organization}/projects", operation_id="org_projects_get", summary="List an organization's projects"
)
async def get_organization_projects(
    *,
    organization: ResourceIdField,
    actor: CurrentUser,
    context: CurrentContext,
    response: Response,
    page: RequestedPage,
    wanted: WantedNames,
) -> list[ProjectBody]:
    """List the projects of an organization that one sees."""
    async with context.store.read() as connection:
        found = await organization_for(connection, actor, organization, Permission.VIEW)
        projects, total = await list_projects(
            connection, page=page, sight=sight_of(actor), organization_id=found.id, wanted=wanted
        )
    set_total(response, total)
    return [project_body(project) for project in projects]


@router.post(
    "/organizations/{organization}/projects", operation_id="org_project_post", status_code=201, summary="Make a project"
)
async def post_project(
    organization: ResourceIdField, body: NewProject, actor: CurrentUser, request: Request, context: CurrentContext
) -> ProjectBody:
    """Make a project, and be its maintainer. There is nothing in it yet."""

    async def work(connection: Connection) -> ProjectRecord:
        found = await organization_for(connection, actor, organization, Permission.CREATE)
        now = context.clock.now()
        made = await create_project(
            connection,
            organization_id=found.id,
            name=body.name,
            slug=body.slug,
            url=body.url,
            visibility=body.visibility or Visibility.PUBLIC,
            maintainer_id=actor.user.id,
            now=now,
        )
        await record_act(
            connection, act_of(request, actor, "project.create", "project", made.id, slug=made.slug), now=now
        )
        return made

    return project_body(await context.store.write(work))


@router.get("/projects/{project}", operation_id="project_get", summary="View a project")
async def get_project(project: ResourceIdField, actor: CurrentActor, context: CurrentContext) -> ProjectBody:
    """View a project."""
    async with context.store.read() as connection:
        return project_body(await project_for(connection, actor, project, Permission.VIEW))


@router.patch("/projects/{project}", operation_id="project_patch", summary="Change a project")
async def patch_project(
    project: ResourceIdField, body: ProjectPatch, actor: CurrentUser, request: Request, context: CurrentContext
) -> ProjectBody:
    """Change a project; a URL of null takes it away."""

    async def work(connection: Connection) -> ProjectRecord:
        found = await project_for(connection, actor, project, Permission.EDIT)
        changes = ProjectChanges(
            name=body.name,
            slug=body.slug,
            url=body.url,
            clear_url=body.clears("url"),
            visibility=body.visibility,
        )
        now = context.clock.now()
        changed = await update_project(connection, project_id=found.id, changes=changes, now=now)
        details = body.model_dump(mode="json", exclude_unset=True)
        await record_act(connection, act_of(request, actor, "project.update", "project", found.id, **details), now=now)
        return changed or found

    return project_body(await context.store.write(work))


@router.delete("/projects/{project}", operation_id="project_delete", status_code=204, summary="Delete a project")
async def delete_project(
    *,
    project: ResourceIdField,
    actor: CurrentUser,
    request: Request,
    context: CurrentContext,
    hard: HardFlag = "false",
) -> None:
    """Delete a project with all that is in it: out of sight, or for good. Its jobs are canceled."""

    async def work(connection: Connection) -> tuple[str, ...]:
        found = await project_for(connection, actor, project, Permission.DELETE)
        now = context.clock.now()
        blobs: tuple[str, ...] = ()
        if hard == "true":
            if not actor.user.admin:
                raise Forbidden("deleting for good is for administrators of the server")
            blobs = await erase_stopped(connection, project_id=found.id, now=now)
        else:
            await stop_jobs(connection, project_id=found.id, now=now)
            await hide_project(connection, project_id=found.id, now=now)
        act = act_of(request, actor, "project.delete", "project", found.id, slug=found.slug, hard=hard == "true")
        await record_act(connection, act, now=now)
        return blobs

    await forget_blobs(context, await context.store.write(work))


@router.get("/projects/{project}/allowed/{permission}", operation_id="proj_allowed_get", summary="Ask for a permission")
async def get_project_allowed(
    project: ResourceIdField, permission: Permission, actor: CurrentUser, context: CurrentContext
) -> AllowedBody:
    """Tell whether one may do something with a project that one sees."""
    async with context.store.read() as connection:
        found = await project_for(connection, actor, project, Permission.VIEW)
        return AllowedBody(allowed=permission in await project_permissions(connection, actor, found))
