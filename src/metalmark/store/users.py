"""Users: accounts of people, each with a personal organization."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, and_, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from metalmark.model import Conflict, Email, OrganizationRole, ResourceId, Slug, UserName, new_id, slug_for
from metalmark.store.changes import given
from metalmark.store.page import Page
from metalmark.store.selection import EVERYTHING, Selection, is_called, selected_rows
from metalmark.store.slugs import insert_with_slug
from metalmark.store.tables import organization_roles, organizations, users


@dataclass(frozen=True, kw_only=True)
class UserRecord:
    """A user."""

    id: UUID
    name: UserName
    slug: Slug
    email: Email
    admin: bool
    """Whether the user administers the server."""
    locked: bool
    """Whether the user is kept out, whatever the credential."""
    session_epoch: int
    """Which sign-ins are good: those that were given this number."""
    created: datetime
    modified: datetime


@dataclass(frozen=True, kw_only=True)
class UserChanges:
    """What of a user is to be different; None leaves a field."""

    name: UserName | None = None
    slug: Slug | None = None
    email: Email | None = None
    admin: bool | None = None
    locked: bool | None = None


def _user(row: Row[Any]) -> UserRecord:
    return user_of(row._mapping)  # noqa: SLF001  how SQLAlchemy spells its public mapping


def user_of(fields: Mapping[Any, Any], prefix: str = "") -> UserRecord:
    """Return the user of a row, whose columns' names begin so."""
    return UserRecord(
        id=fields[f"{prefix}id"],
        name=UserName(fields[f"{prefix}name"]),
        slug=Slug(fields[f"{prefix}slug"]),
        email=Email(fields[f"{prefix}email"]),
        admin=fields[f"{prefix}admin"],
        locked=fields[f"{prefix}locked"],
        session_epoch=fields[f"{prefix}session_epoch"],
        created=fields[f"{prefix}created"],
        modified=fields[f"{prefix}modified"],
    )


async def create_user(
    connection: AsyncConnection,
    *,
    name: UserName,
    email: Email,
    now: datetime,
    slug: Slug | None = None,
    admin: bool = False,
    personal_organization: bool = True,
) -> UserRecord:
    """Make a user and, unless told otherwise, the personal organization that the user leads.

    The very first user of a server administers it, asked for or not.

    Raises:
        Conflict: The address is taken.
    """
    first = not await any_user(connection)
    values = {
        "id": new_id(),
        "name": name,
        "email": email,
        "admin": admin or first,
        "locked": False,
        "session_epoch": 0,
        "created": now,
        "modified": now,
    }
    taken = (await connection.execute(select(users.c.id).where(users.c.email == email))).one_or_none()
    if taken is not None:
        raise Conflict(f"the address {email} has an account", field="email", hint="sign in")
    got = await insert_with_slug(connection, users, slug=slug_for(name, slug), values=values)
    user = _user((await connection.execute(select(users).where(users.c.slug == got))).one())
    if personal_organization:
        await create_personal_organization(connection, user=user, now=now)
    return user


async def create_personal_organization(connection: AsyncConnection, *, user: UserRecord, now: datetime) -> None:
    """Make the organization that has its user's identifier, and make the user its leader.

    One that the user has deleted comes back, empty as it is then. There must be none that is not deleted.
    """
    revived = update(organizations).where(and_(organizations.c.id == user.id, organizations.c.deleted.is_not(None)))
    # Its slug stays the one that deletion gave it, for the user's own may be another's by now.
    done = await connection.execute(revived.values(name=user.name, deleted=None, modified=now))
    if done.rowcount == 0:
        values = {"id": user.id, "name": user.name, "created": now, "modified": now}
        await insert_with_slug(connection, organizations, slug=user.slug, values=values)
    led = {"organization_id": user.id, "user_id": user.id}
    await connection.execute(
        delete(organization_roles).where(
            and_(organization_roles.c.organization_id == user.id, organization_roles.c.user_id == user.id)
        )
    )
    role = OrganizationRole.LEADER.value
    await connection.execute(insert(organization_roles).values(**led, role=role, created=now, modified=now))


async def any_user(connection: AsyncConnection) -> bool:
    """Whether there is a user at all."""
    return (await connection.execute(select(users.c.id).limit(1))).first() is not None


async def find_user(connection: AsyncConnection, identifier: ResourceId) -> UserRecord | None:
    """Return the user of a UUID or slug."""
    named = is_called(users, identifier)
    row = (await connection.execute(select(users).where(named))).one_or_none()
    return None if row is None else _user(row)


async def find_user_by_email(connection: AsyncConnection, email: Email) -> UserRecord | None:
    """Return the user of an address."""
    row = (await connection.execute(select(users).where(users.c.email == email))).one_or_none()
    return None if row is None else _user(row)


async def list_users(
    connection: AsyncConnection, *, page: Page, wanted: Selection = EVERYTHING
) -> tuple[tuple[UserRecord, ...], int]:
    """Return a page of users, and how many match."""
    rows, total = await selected_rows(connection, select(users), users, wanted, page)
    return tuple(_user(row) for row in rows), total


async def update_user(
    connection: AsyncConnection, *, user_id: UUID, changes: UserChanges, now: datetime
) -> UserRecord | None:
    """Change a user, and return what it is then; None when there is none.

    Raises:
        Conflict: The slug or address is taken, or nobody would be left to administer the server.
    """
    values = given(
        name=changes.name, slug=changes.slug, email=changes.email, admin=changes.admin, locked=changes.locked
    )
    if changes.admin is False or changes.locked:
        await _keep_an_admin(connection, user_id)
    changed = update(users).where(users.c.id == user_id).values(**values, modified=now).returning(users)
    row = (await connection.execute(changed)).one_or_none()
    return None if row is None else _user(row)


async def end_sessions(connection: AsyncConnection, *, user_id: UUID) -> None:
    """End all sign-ins of a user so far, and those that were begun and not confirmed. Keys and tokens stay."""
    following = users.c.session_epoch + 1
    await connection.execute(update(users).where(users.c.id == user_id).values(session_epoch=following))


async def _keep_an_admin(connection: AsyncConnection, user_id: UUID) -> None:
    able = and_(users.c.admin, ~users.c.locked)
    # Locked for the transaction, so that two administrators do not remove each other at the same time.
    ids = (await connection.execute(select(users.c.id).where(able).order_by(users.c.id).with_for_update())).scalars()
    if set(ids) == {user_id}:
        hint = "make another user an administrator first"
        raise Conflict("this is the only administrator of the server", field="admin", hint=hint)
