"""Signing up, signing in, confirming by mail, accepting invitations."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from fastapi import APIRouter, Request

from metalmark.model import Email, Forbidden, NotFound, OrganizationRole, Unauthenticated
from metalmark.server.account_bodies import user_body
from metalmark.server.actor import Anonymous
from metalmark.server.audit import act_of
from metalmark.server.caller import CurrentUser
from metalmark.server.client_address import address_group
from metalmark.server.config import SignUp
from metalmark.server.context import CurrentContext, ServerContext
from metalmark.server.credentials import check_epoch
from metalmark.server.mail import confirmation_mail
from metalmark.server.rate_limits import Limited
from metalmark.server.signer import Audience
from metalmark.store import (
    Connection,
    InviteRecord,
    UserRecord,
    accept_invite,
    add_member,
    create_user,
    find_open_invite,
    find_organization,
    find_user,
    find_user_by_email,
    record_act,
)
from metalmark.wire import AcceptBody, ConfirmBody, MailedBody, SessionBody, SignInBody, SignUpBody

router = APIRouter(prefix="/v0/auth", tags=["auth"])


def _count_attempt(request: Request, context: ServerContext) -> None:
    context.limits.spend(Limited.SIGN_IN_ATTEMPTS, address_group(request.state.client_address))


def _may_sign_up(body: SignUpBody, context: ServerContext) -> None:
    policy = context.config.auth.signup
    if policy is SignUp.CLOSED:
        raise Forbidden("nobody can sign up here", hint="ask the operator for an account")
    if policy is SignUp.INVITE and body.invite is None:
        raise Forbidden("signing up takes an invitation here", hint="ask a leader of an organization for one")
    if not body.i_agree:
        raise Forbidden("`i_agree` is false", why="an account takes the agreement of who gets it")


async def _invite(
    connection: Connection, context: ServerContext, token: str, email: Email, now: datetime
) -> InviteRecord:
    claims = context.signer.read(token, Audience.INVITE)
    # Compared with the address that the token was mailed to: having it proves that the mailbox is one's own.
    if claims.invitation is None or claims.subject != email:
        raise Unauthenticated("this invitation is for another address", hint="sign in as whom it was sent to")
    invite = await find_open_invite(connection, invite_id=claims.invitation.id, email=email, now=now)
    if invite is None or await find_organization(connection, invite.organization_id) is None:
        raise Unauthenticated("this invitation is no longer good", hint="ask for a new one")
    return invite


async def _join(connection: Connection, invite: InviteRecord, user_id: UUID, now: datetime) -> None:
    await add_member(connection, organization_id=invite.organization_id, user_id=user_id, role=invite.role, now=now)
    await accept_invite(connection, invite_id=invite.id, now=now)


async def _send_confirmation(context: ServerContext, user: UserRecord, *, new: bool) -> None:
    ttl_s = context.config.auth.confirmation_ttl_s
    token = context.signer.sign(Audience.CONFIRM, str(user.id), ttl_s=ttl_s, epoch=user.session_epoch)
    mail = confirmation_mail(user.email, new=new, console_url=context.config.console_url, token=token.text)
    await context.mailer.send(mail)


async def _claim(connection: Connection, organization_id: UUID, user_id: UUID, now: datetime) -> None:
    organization = await find_organization(connection, organization_id)
    if organization is None:
        raise NotFound("organization", organization_id)
    if organization.claimed is not None:
        raise Unauthenticated("this organization is claimed already", hint="ask one of its leaders for an invitation")
    await add_member(
        connection, organization_id=organization_id, user_id=user_id, role=OrganizationRole.LEADER, now=now
    )


@router.post("/signup", operation_id="auth_signup_post", status_code=202, summary="Sign up")
async def sign_up(body: SignUpBody, request: Request, context: CurrentContext) -> MailedBody:
    """Make an account, and send a mail to confirm it with; `auth.signup` of the configuration says who may."""
    _count_attempt(request, context)
    _may_sign_up(body, context)

    async def work(connection: Connection) -> UserRecord:
        now = context.clock.now()
        invite = body.invite and await _invite(connection, context, body.invite, body.email, now)
        user = await create_user(
            connection,
            name=body.name,
            email=body.email,
            slug=body.slug,
            now=now,
            personal_organization=not invite and body.claim is None,
        )
        if invite:
            await _join(connection, invite, user.id, now)
        elif body.claim is not None:
            await _claim(connection, body.claim, user.id, now)
        act = act_of(request, Anonymous(), "user.sign_up", "user", user.id, admin=user.admin)
        await record_act(connection, act, now=now)
        return user

    user = await context.store.write(work)
    # After the write: whoever has the address already must not be cut off from signing in by a stranger's attempts.
    context.limits.spend(Limited.MAILS, body.email)
    await _send_confirmation(context, user, new=True)
    return MailedBody(email=body.email)


@router.post("/login", operation_id="auth_login_post", status_code=202, summary="Sign in")
async def sign_in(body: SignInBody, request: Request, context: CurrentContext) -> MailedBody:
    """Send a mail to sign in with."""
    _count_attempt(request, context)

    async def work(connection: Connection) -> UserRecord:
        now = context.clock.now()
        user = await find_user_by_email(connection, body.email)
        if user is None:
            raise NotFound("user", body.email, hint="sign up")
        if user.locked:
            raise Forbidden("this account is locked", hint="ask an administrator of the server")
        if body.invite is not None:
            invite = await _invite(connection, context, body.invite, body.email, now)
            await _join(connection, invite, user.id, now)
        return user

    if body.invite is None:
        async with context.store.read() as connection:
            user = await work(connection)
    else:
        user = await context.store.write(work)
    context.limits.spend(Limited.MAILS, body.email)
    await _send_confirmation(context, user, new=False)
    return MailedBody(email=body.email)


@router.post("/confirm", operation_id="auth_confirm_post", summary="Confirm a mail")
async def confirm(body: ConfirmBody, request: Request, context: CurrentContext) -> SessionBody:
    """Exchange the token of a mail for one that signs in."""
    _count_attempt(request, context)
    claims = context.signer.read(body.token, Audience.CONFIRM)
    async with context.store.read() as connection:
        user = await find_user(connection, claims.subject_id)
    if user is None:
        raise NotFound("user", claims.subject_id)
    if user.locked:
        raise Forbidden("this account is locked", hint="ask an administrator of the server")
    check_epoch(claims, user)
    ttl_s = context.config.auth.session_ttl_s
    session = context.signer.sign(Audience.SESSION, str(user.id), ttl_s=ttl_s, epoch=user.session_epoch)
    return SessionBody(user=user_body(user), token=session.text, creation=session.issued, expiration=session.expires)


@router.post("/accept", operation_id="auth_accept_post", status_code=202, summary="Accept an invitation")
async def accept(body: AcceptBody, actor: CurrentUser, request: Request, context: CurrentContext) -> MailedBody:
    """Become a member of the organization that an invitation is for."""

    async def work(connection: Connection) -> None:
        now = context.clock.now()
        invite = await _invite(connection, context, body.invite, actor.user.email, now)
        await _join(connection, invite, actor.user.id, now)
        place, role = invite.organization_id, invite.role.value
        act = act_of(request, actor, "member.accept", "organization", place, role=role)
        await record_act(connection, act, now=now)

    await context.store.write(work)
    return MailedBody(email=actor.user.email)
