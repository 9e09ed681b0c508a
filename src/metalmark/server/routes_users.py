"""Users: for themselves and for administrators of the server."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from metalmark.model import Forbidden, NotFound, ResourceId
from metalmark.server.account_bodies import user_body
from metalmark.server.actor import UserActor, Via
from metalmark.server.audit import act_of
from metalmark.server.caller import CurrentUser, ServerAdmin
from metalmark.server.context import CurrentContext
from metalmark.server.name_lists import WantedNames
from metalmark.server.paging import RequestedPage, set_total
from metalmark.store import (
    Connection,
    UserChanges,
    UserRecord,
    end_sessions,
    find_user,
    list_users,
    record_act,
    update_user,
)
from metalmark.wire import ChangeUserBody, ResourceIdField, UserBody

router = APIRouter(prefix="/v0/users", tags=["users"])


async def user_for(connection: Connection, actor: UserActor, identifier: ResourceId) -> UserRecord:
    """Return the user that an actor names: itself, or anybody for an administrator of the server.

    Raises:
        NotFound: An administrator names nobody.
        Forbidden: It is somebody else, or nobody: who is no administrator does not learn which.
    """
    user = await find_user(connection, identifier)
    if user is not None and (actor.user.admin or user.id == actor.user.id):
        return user
    if actor.user.admin:
        raise NotFound("user", identifier)
    raise Forbidden("this is not you", why="other users are for administrators of the server")


@router.get("", operation_id="users_get", summary="List users")
async def get_users(
    *,
    _admin: ServerAdmin,
    context: CurrentContext,
    response: Response,
    page: RequestedPage,
    wanted: WantedNames,
) -> list[UserBody]:
    """List all users."""
    async with context.store.read() as connection:
        users, total = await list_users(connection, page=page, wanted=wanted)
    set_total(response, total)
    return [user_body(user) for user in users]


@router.get("/{user}", operation_id="user_get", summary="View a user")
async def get_user(user: ResourceIdField, actor: CurrentUser, context: CurrentContext) -> UserBody:
    """View a user."""
    async with context.store.read() as connection:
        return user_body(await user_for(connection, actor, user))


@router.patch("/{user}", operation_id="user_patch", summary="Change a user")
async def patch_user(
    user: ResourceIdField, body: ChangeUserBody, actor: CurrentUser, request: Request, context: CurrentContext
) -> UserBody:
    """Change a user. ``admin`` and ``locked`` are for administrators of the server; a key changes no ``email``."""

    async def work(connection: Connection) -> UserRecord:
        found = await user_for(connection, actor, user)
        if not actor.user.admin and (body.admin is not None or body.locked is not None):
            raise Forbidden("`admin` and `locked` are for administrators of the server")
        if actor.via is Via.KEY and not actor.user.admin and body.email not in (None, found.email):
            # Who has the address can sign in, make keys, and go on when the one that leaked is revoked.
            raise Forbidden("a key changes no address", hint="sign in, and use the token of that")
        changes = UserChanges(name=body.name, slug=body.slug, email=body.email, admin=body.admin, locked=body.locked)
        now = context.clock.now()
        changed = await update_user(connection, user_id=found.id, changes=changes, now=now)
        details = body.model_dump(mode="json", exclude_none=True)
        await record_act(connection, act_of(request, actor, "user.update", "user", found.id, **details), now=now)
        return changed or found

    return user_body(await context.store.write(work))


@router.delete("/{user}/sessions", operation_id="user_sessions_delete", status_code=204, summary="End all sign-ins")
async def delete_sessions(user: ResourceIdField, actor: CurrentUser, request: Request, context: CurrentContext) -> None:
    """End all sign-ins of a user at once, this one too. Keys and tokens stay: each is revoked by itself."""

    async def work(connection: Connection) -> None:
        found = await user_for(connection, actor, user)
        await end_sessions(connection, user_id=found.id)
        act = act_of(request, actor, "user.end_sessions", "user", found.id)
        await record_act(connection, act, now=context.clock.now())

    await context.store.write(work)
