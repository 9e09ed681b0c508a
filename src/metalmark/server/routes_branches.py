"""``/v0/projects/{project}/branches``: what a project measures, and its lines of history."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response

from metalmark.model import Forbidden, NotFound, Permission, ResourceId
from metalmark.server.actor import Actor, ProjectKeyActor
from metalmark.server.caller import CurrentActor
from metalmark.server.context import CurrentContext
from metalmark.server.name_lists import ArchivedInstead, WantedBranches
from metalmark.server.paging import RequestedPage, set_total
from metalmark.server.permission import project_for
from metalmark.server.report_bodies import branch_body
from metalmark.server.report_draft import start_request
from metalmark.store import (
    BranchChanges,
    BranchRecord,
    Connection,
    StartRequest,
    create_branch,
    delete_branch,
    find_branch_at,
    list_branches,
    restart_branch,
    start_point_for,
    update_branch,
)
from metalmark.wire import (
    MAX_VERSIONS,
    BranchBody,
    BranchPatch,
    NewBranch,
    ResourceIdField,
    UuidField,
)

router = APIRouter(tags=["branches"])


def refuse_renaming(actor: Actor, *given: object) -> None:
    """Refuse the key of a project what people decide: names and slugs.

    Raises:
        Forbidden: It is a key, and one of the values is given.
    """
    if isinstance(actor, ProjectKeyActor) and any(value is not None for value in given):
        raise Forbidden("the key of a project changes no names and slugs", hint="use a user's credential")


@router.get("/v0/projects/{project}/branches", operation_id="proj_branches_get")
async def get_branches(
    *,
    context: CurrentContext,
    actor: CurrentActor,
    response: Response,
    page: RequestedPage,
    project: ResourceIdField,
    wanted: WantedBranches,
    archived: ArchivedInstead = "false",
) -> list[BranchBody]:
    """List the branches of a project."""
    async with context.store.read() as connection:
        found = await project_for(connection, actor, project, Permission.VIEW)
        branches, total = await list_branches(
            connection, page=page, project_id=found.id, archived=archived == "true", wanted=wanted
        )
    set_total(response, total)
    return [branch_body(branch) for branch in branches]


@router.post("/v0/projects/{project}/branches", operation_id="proj_branch_post", status_code=201)
async def post_branch(
    context: CurrentContext, actor: CurrentActor, project: ResourceIdField, body: NewBranch
) -> BranchBody:
    """Make a branch. A start point that is not there is ignored."""
    start, now = body.start_point, context.clock.now()

    async def work(connection: Connection) -> BranchRecord:
        found = await project_for(connection, actor, project, Permission.CREATE)
        request = None if start is None else StartRequest(branch=start.branch, hash=start.hash)
        point = await start_point_for(connection, project_id=found.id, request=request)
        most = MAX_VERSIONS if start is None or start.max_versions is None else start.max_versions
        return await create_branch(
            connection, project_id=found.id, name=body.name, slug=body.slug, start=point, max_versions=most, now=now
        )

    return branch_body(await context.store.write(work))


@router.get("/v0/projects/{project}/branches/{branch}", operation_id="proj_branch_get")
async def get_branch(
    context: CurrentContext,
    actor: CurrentActor,
    project: ResourceIdField,
    branch: ResourceIdField,
    head: Annotated[UuidField | None, Query(description="One of its heads; the current one by default.")] = None,
) -> BranchBody:
    """View a branch."""
    async with context.store.read() as connection:
        found = await project_for(connection, actor, project, Permission.VIEW)
        return branch_body(await _named(connection, found.id, branch, head))


@router.patch("/v0/projects/{project}/branches/{branch}", operation_id="proj_branch_patch")
async def patch_branch(
    context: CurrentContext, actor: CurrentActor, project: ResourceIdField, branch: ResourceIdField, body: BranchPatch
) -> BranchBody:
    """Change a branch: where it begins first, then its fields."""
    changes, now = BranchChanges(name=body.name, slug=body.slug, archived=body.archived), context.clock.now()

    async def work(connection: Connection) -> BranchRecord:
        owner = await project_for(connection, actor, project, Permission.EDIT)
        refuse_renaming(actor, body.name, body.slug)
        found = await _named(connection, owner.id, branch, None)
        await restart_branch(connection, found, start_request(body.start_point), now=now)
        return await update_branch(connection, branch_id=found.id, changes=changes, now=now) or found

    return branch_body(await context.store.write(work))


@router.delete("/v0/projects/{project}/branches/{branch}", operation_id="proj_branch_delete", status_code=204)
async def delete_one_branch(
    context: CurrentContext, actor: CurrentActor, project: ResourceIdField, branch: ResourceIdField
) -> None:
    """Delete a branch that has no reports."""

    async def work(connection: Connection) -> None:
        owner = await project_for(connection, actor, project, Permission.DELETE)
        found = await _named(connection, owner.id, branch, None)
        await delete_branch(connection, branch_id=found.id)

    await context.store.write(work)


async def _named(connection: Connection, project_id: UUID, branch: ResourceId, head: UUID | None) -> BranchRecord:
    found = await find_branch_at(connection, project_id=project_id, identifier=branch, head_id=head)
    if found is None:
        raise NotFound("branch" if head is None else "branch with this head", branch)
    return found
