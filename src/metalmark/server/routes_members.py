"""Members of organizations: inviting them, and what they are."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from fastapi import APIRouter, Request, Response

from metalmark.model import Email, NotFound, Permission, ResourceId
from metalmark.server.account_bodies import member_body
from metalmark.server.actor import UserActor
from metalmark.server.audit import act_of
from metalmark.server.caller import CurrentUser
from metalmark.server.context import CurrentContext, ServerContext
from metalmark.server.mail import Mail, invitation_mail
from metalmark.server.name_lists import WantedNames
from metalmark.server.paging import RequestedPage, set_total
from metalmark.server.permission import organization_for
from metalmark.server.rate_limits import Limited
from metalmark.server.signer import Audience, Invitation
from metalmark.store import (
    Connection,
    InviteRecord,
    MemberRecord,
    OrganizationRecord,
    create_invite,
    find_member,
    find_user,
    find_user_by_email,
    list_members,
    record_act,
    remove_member,
    update_member,
)
from metalmark.wire import ChangeMemberBody, MailedBody, MemberBody, NewMemberBody, ResourceIdField

router = APIRouter(prefix="/v0/organizations/{organization}/members", tags=["members"])


async def _member(connection: Connection, organization_id: UUID, identifier: ResourceId) -> MemberRecord:
    user = await find_user(connection, identifier)
    if user is not None:
        found = await find_member(connection, organization_id=organization_id, user_id=user.id)
        if found is not None:
            return found
    raise NotFound("member", identifier)


def _mail(
    context: ServerContext,
    actor: UserActor,
    organization: OrganizationRecord,
    invite: InviteRecord,
    *,
    name: str | None,
    known: bool,
) -> Mail:
    invitation = Invitation(id=invite.id, organization_id=organization.id, role=invite.role.value)
    ttl_s = context.config.auth.invitation_ttl_s
    token = context.signer.sign(Audience.INVITE, invite.email, ttl_s=ttl_s, invitation=invitation)
    return invitation_mail(
        invite.email,
        name=name,
        inviter=actor.user.name,
        organization=organization.name,
        role=invite.role.value,
        console_url=context.config.console_url,
        token=token.text,
        known=known,
    )


@router.get("", operation_id="org_members_get", summary="List members")
async def get_members(
    *,
    organization: ResourceIdField,
    actor: CurrentUser,
    context: CurrentContext,
    response: Response,
    page: RequestedPage,
    wanted: WantedNames,
) -> list[MemberBody]:
    """List the members of an organization."""
    async with context.store.read() as connection:
        found = await organization_for(connection, actor, organization, Permission.VIEW_ROLE)
        members, total = await list_members(connection, organization_id=found.id, page=page, wanted=wanted)
    set_total(response, total)
    return [member_body(member) for member in members]


@router.post("", operation_id="org_member_post", status_code=202, summary="Invite a member")
async def post_member(
    organization: ResourceIdField,
    body: NewMemberBody,
    actor: CurrentUser,
    request: Request,
    context: CurrentContext,
) -> MailedBody:
    """Invite somebody by mail, with an account or without one."""
    email: Email = body.email

    async def work(connection: Connection) -> Mail:
        found = await organization_for(connection, actor, organization, Permission.CREATE_ROLE)
        now = context.clock.now()
        invite = await create_invite(
            connection,
            organization_id=found.id,
            inviter_id=actor.user.id,
            email=email,
            role=body.role,
            now=now,
            expires=now + timedelta(seconds=context.config.auth.invitation_ttl_s),
        )
        act = act_of(request, actor, "member.invite", "organization", found.id, email=email, role=body.role.value)
        await record_act(connection, act, now=now)
        known = await find_user_by_email(connection, email) is not None
        return _mail(context, actor, found, invite, name=body.name, known=known)

    mail = await context.store.write(work)
    # After the permission: a stranger must not use up what somebody's mailbox may get.
    context.limits.spend(Limited.MAILS, email)
    await context.mailer.send(mail)
    return MailedBody(email=email)


@router.get("/{user}", operation_id="org_member_get", summary="View a member")
async def get_member(
    organization: ResourceIdField, user: ResourceIdField, actor: CurrentUser, context: CurrentContext
) -> MemberBody:
    """View a member of an organization."""
    async with context.store.read() as connection:
        found = await organization_for(connection, actor, organization, Permission.VIEW_ROLE)
        return member_body(await _member(connection, found.id, user))


@router.patch("/{user}", operation_id="org_member_patch", summary="Change a member's role")
async def patch_member(
    *,
    organization: ResourceIdField,
    user: ResourceIdField,
    body: ChangeMemberBody,
    actor: CurrentUser,
    request: Request,
    context: CurrentContext,
) -> MemberBody:
    """Change the role of a member. The last leader stays one."""

    async def work(connection: Connection) -> MemberRecord:
        found = await organization_for(connection, actor, organization, Permission.EDIT_ROLE)
        member = await _member(connection, found.id, user)
        now = context.clock.now()
        changed = await update_member(
            connection, organization_id=found.id, user_id=member.user_id, role=body.role, now=now
        )
        role = body.role and body.role.value
        act = act_of(request, actor, "member.update", "organization", found.id, user=str(member.user_id), role=role)
        await record_act(connection, act, now=now)
        return changed or member

    return member_body(await context.store.write(work))


@router.delete("/{user}", operation_id="org_member_delete", status_code=204, summary="Remove a member")
async def delete_member(
    organization: ResourceIdField,
    user: ResourceIdField,
    actor: CurrentUser,
    request: Request,
    context: CurrentContext,
) -> None:
    """Remove a member from an organization; everybody may leave. The last leader stays."""

    async def work(connection: Connection) -> None:
        leaves = user in (actor.user.id, actor.user.slug)
        needed = Permission.VIEW if leaves else Permission.DELETE_ROLE
        found = await organization_for(connection, actor, organization, needed)
        member = await _member(connection, found.id, user)
        await remove_member(connection, organization_id=found.id, user_id=member.user_id)
        now = context.clock.now()
        act = act_of(request, actor, "member.remove", "organization", found.id, user=str(member.user_id))
        await record_act(connection, act, now=now)

    await context.store.write(work)
