"""Organizations: who owns projects."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from metalmark.model import Forbidden, NotFound, OrganizationRole, Permission, Unauthenticated
from metalmark.server.account_bodies import organization_body
from metalmark.server.audit import act_of
from metalmark.server.caller import CurrentUser
from metalmark.server.context import CurrentContext
from metalmark.server.name_lists import HardFlag, WantedNames
from metalmark.server.paging import RequestedPage, set_total
from metalmark.server.permission import organization_for, organization_permissions
from metalmark.server.project_removal import erase_all_projects, forget_blobs, stop_all_jobs
from metalmark.store import (
    Connection,
    OrganizationRecord,
    add_member,
    create_organization,
    erase_organization,
    find_organization,
    hide_organization,
    list_organizations,
    record_act,
    update_organization,
)
from metalmark.wire import (
    AllowedBody,
    ChangeOrganizationBody,
    ClaimBody,
    NewOrganizationBody,
    OrganizationBody,
    ResourceIdField,
)

router = APIRouter(prefix="/v0/organizations", tags=["organizations"])


@router.get("", operation_id="organizations_get", summary="List organizations")
async def get_organizations(
    *,
    actor: CurrentUser,
    context: CurrentContext,
    response: Response,
    page: RequestedPage,
    wanted: WantedNames,
) -> list[OrganizationBody]:
    """List the organizations that one is a member of; administrators of the server see all."""
    async with context.store.read() as connection:
        organizations, total = await list_organizations(
            connection, page=page, member_id=None if actor.user.admin else actor.user.id, wanted=wanted
        )
    set_total(response, total)
    return [organization_body(organization) for organization in organizations]


@router.post("", operation_id="organization_post", status_code=201, summary="Make an organization")
async def post_organization(
    body: NewOrganizationBody, actor: CurrentUser, request: Request, context: CurrentContext
) -> OrganizationBody:
    """Make an organization, and lead it."""

    async def work(connection: Connection) -> OrganizationRecord:
        now = context.clock.now()
        made = await create_organization(connection, name=body.name, slug=body.slug, leader_id=actor.user.id, now=now)
        act = act_of(request, actor, "organization.create", "organization", made.id, slug=made.slug)
        await record_act(connection, act, now=now)
        return made

    return organization_body(await context.store.write(work))


@router.get("/{organization}", operation_id="organization_get", summary="View an organization")
async def get_organization(
    organization: ResourceIdField, actor: CurrentUser, context: CurrentContext
) -> OrganizationBody:
    """View an organization."""
    async with context.store.read() as connection:
        return organization_body(await organization_for(connection, actor, organization, Permission.VIEW))


@router.patch("/{organization}", operation_id="organization_patch", summary="Change an organization")
async def patch_organization(
    organization: ResourceIdField,
    body: ChangeOrganizationBody,
    actor: CurrentUser,
    request: Request,
    context: CurrentContext,
) -> OrganizationBody:
    """Change an organization."""

    async def work(connection: Connection) -> OrganizationRecord:
        found = await organization_for(connection, actor, organization, Permission.EDIT)
        now = context.clock.now()
        changed = await update_organization(
            connection, organization_id=found.id, name=body.name, slug=body.slug, now=now
        )
        details = body.model_dump(mode="json", include={"name", "slug"}, exclude_none=True)
        act = act_of(request, actor, "organization.update", "organization", found.id, **details)
        await record_act(connection, act, now=now)
        return changed or found

    return organization_body(await context.store.write(work))


@router.delete("/{organization}", operation_id="organization_delete", status_code=204, summary="Delete an organization")
async def delete_organization(
    *,
    organization: ResourceIdField,
    actor: CurrentUser,
    request: Request,
    context: CurrentContext,
    hard: HardFlag = "false",
) -> None:
    """Delete an organization with its projects: out of sight, or for good."""

    async def work(connection: Connection) -> tuple[str, ...]:
        found = await organization_for(connection, actor, organization, Permission.DELETE)
        now = context.clock.now()
        if hard == "true":
            if not actor.user.admin:
                raise Forbidden("deleting for good is for administrators of the server")
            blobs = await erase_all_projects(connection, organization_id=found.id, now=now)
            await erase_organization(connection, organization_id=found.id)
        else:
            blobs = ()
            await stop_all_jobs(connection, organization_id=found.id, now=now)
            await hide_organization(connection, organization_id=found.id, now=now)
        act = act_of(
            request, actor, "organization.delete", "organization", found.id, slug=found.slug, hard=hard == "true"
        )
        await record_act(connection, act, now=now)
        return blobs

    await forget_blobs(context, await context.store.write(work))


@router.post("/{organization}/claim", operation_id="org_claim_post", status_code=201, summary="Claim an organization")
async def claim_organization(
    organization: ResourceIdField,
    body: ClaimBody,  # noqa: ARG001  there is nothing in it
    actor: CurrentUser,
    request: Request,
    context: CurrentContext,
) -> OrganizationBody:
    """Become the leader of an organization that has no member."""

    async def work(connection: Connection) -> OrganizationRecord:
        found = await find_organization(connection, organization)
        if found is None:
            raise NotFound("organization", organization)
        if found.claimed is not None:
            if Permission.VIEW not in await organization_permissions(connection, actor, found):
                raise NotFound("organization", organization)
            raise Unauthenticated("this organization is claimed already", hint="ask a leader for an invitation")
        now = context.clock.now()
        await add_member(
            connection, organization_id=found.id, user_id=actor.user.id, role=OrganizationRole.LEADER, now=now
        )
        await record_act(connection, act_of(request, actor, "organization.claim", "organization", found.id), now=now)
        return await find_organization(connection, found.id) or found

    return organization_body(await context.store.write(work))


@router.get("/{organization}/allowed/{permission}", operation_id="org_allowed_get", summary="Ask for a permission")
async def get_organization_allowed(
    organization: ResourceIdField, permission: Permission, actor: CurrentUser, context: CurrentContext
) -> AllowedBody:
    """Tell whether one may do something with an organization that one sees."""
    async with context.store.read() as connection:
        found = await organization_for(connection, actor, organization, Permission.VIEW)
        return AllowedBody(allowed=permission in await organization_permissions(connection, actor, found))
