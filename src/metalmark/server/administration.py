"""What an operator does at the machine itself, without the server's leave: accounts and their keys.

It is recorded like what administrators do through the interface, with ``operator`` as the actor.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from metalmark.model import ApiKey, Email, InputError, KeyKind, NotFound, ResourceName, UserName, parse_resource_id
from metalmark.server.first_start import KEY_TTL_S
from metalmark.store import (
    Act,
    Connection,
    Holder,
    Store,
    UserRecord,
    create_key,
    create_user,
    end_sessions,
    find_user,
    find_user_by_email,
    record_act,
    revoke_keys,
)
from metalmark.system import Clock


def _act(action: str, subject_id: UUID, **details: str | int | bool | None) -> Act:
    return Act(
        actor_kind="operator",
        actor_id=None,
        action=action,
        subject_kind="user",
        subject_id=subject_id,
        details=details,
    )


async def _new_key(connection: Connection, user: UserRecord, name: str, now: datetime) -> ApiKey:
    key = ApiKey.new(KeyKind.USER)
    await create_key(
        connection,
        Holder.USER,
        owner_id=user.id,
        key=key,
        name=ResourceName(name),
        now=now,
        expires=now + timedelta(seconds=KEY_TTL_S),
    )
    return key


async def make_account(
    store: Store, clock: Clock, *, name: UserName, email: Email, admin: bool
) -> tuple[UserRecord, ApiKey]:
    """Make a user with a key, and the organization that is the user's own.

    Raises:
        Conflict: The address has an account.
    """

    async def work(connection: Connection) -> tuple[UserRecord, ApiKey]:
        now = clock.now()
        user = await create_user(connection, name=name, email=email, now=now, admin=admin)
        key = await _new_key(connection, user, "made by the operator", now)
        await record_act(connection, _act("user.create", user.id, admin=user.admin), now=now)
        return user, key

    return await store.write(work)


async def _user_named(connection: Connection, user: str) -> UserRecord:
    found = (
        await find_user_by_email(connection, Email.parse(user))
        if "@" in user
        else await find_user(connection, parse_resource_id(user, field="user"))
    )
    if found is None:
        raise NotFound("user", user, hint="give the UUID, the slug or the e-mail address")
    return found


async def reset_key(store: Store, clock: Clock, user: str) -> tuple[UserRecord, ApiKey, int]:
    """Give a user a new key in place of all keys and sign-ins so far.

    Args:
        store: The server's.
        clock: Where the time is read.
        user: UUID, slug or e-mail address.

    Returns:
        The user, the new key, and how many keys are no longer valid.

    Raises:
        InputError: The user is none of the three.
        NotFound: There is no such user.
    """

    async def work(connection: Connection) -> tuple[UserRecord, ApiKey, int]:
        now = clock.now()
        found = await _user_named(connection, user)
        if found.locked:
            raise InputError("user", user, "the account is locked", hint="an administrator unlocks it first")
        revoked = await revoke_keys(connection, Holder.USER, owner_id=found.id, now=now)
        await end_sessions(connection, user_id=found.id)
        key = await _new_key(connection, found, "reset by the operator", now)
        await record_act(connection, _act("user.reset_key", found.id, revoked=revoked), now=now)
        return found, key, revoked

    return await store.write(work)
