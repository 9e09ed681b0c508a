"""Keys of users and projects, and API tokens of the older kind: who holds one acts as its owner.

Only hashes are kept. What is revoked or expired stays listed, and is never valid again.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, Table, and_, bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from metalmark.model import ApiKey, Conflict, ResourceName, new_id
from metalmark.store.page import Page
from metalmark.store.selection import EVERYTHING, Selection, selected_rows
from metalmark.store.tables import project_keys, projects, tokens, user_keys, users
from metalmark.store.users import UserRecord, user_of

_USER = "user_of_key_"


class Holder(Enum):
    """What a key opens; decides which table it is in."""

    USER = "user"
    PROJECT = "project"
    TOKEN = "token"  # noqa: S105  the name of a kind, not one


@dataclass(frozen=True, kw_only=True)
class KeyRecord:
    """A key, without its text, which nobody has but who made it."""

    id: UUID
    owner_id: UUID
    """The user or project that it acts as."""
    creator_id: UUID | None
    """Who made it; known of project keys, unless the user is gone."""
    name: ResourceName
    created: datetime
    expires: datetime
    revoked: datetime | None

    def valid_at(self, now: datetime) -> bool:
        """Whether it opens anything at that time."""
        return self.revoked is None and now < self.expires


_TABLES: dict[Holder, tuple[Table, str]] = {
    Holder.USER: (user_keys, "user_id"),
    Holder.PROJECT: (project_keys, "project_id"),
    Holder.TOKEN: (tokens, "user_id"),
}


def _key(row: Row[Any], owner: str) -> KeyRecord:
    fields = row._mapping  # noqa: SLF001  how SQLAlchemy spells its public mapping
    return KeyRecord(
        id=fields["id"],
        owner_id=fields[owner],
        creator_id=fields.get("creator_id"),
        name=ResourceName(fields["name"]),
        created=fields["created"],
        expires=fields["expires"],
        revoked=fields["revoked"],
    )


async def create_key(
    connection: AsyncConnection,
    holder: Holder,
    *,
    owner_id: UUID,
    key: ApiKey,
    name: ResourceName,
    now: datetime,
    expires: datetime,
    creator_id: UUID | None = None,
) -> KeyRecord:
    """Keep the hash of a new key."""
    table, owner = _TABLES[holder]
    values: dict[str, Any] = {
        "id": new_id(),
        owner: owner_id,
        "name": name,
        "hash": key.digest,
        "created": now,
        "expires": expires,
        "modified": now,
    }
    if holder is Holder.PROJECT:
        values["creator_id"] = creator_id
    return _key((await connection.execute(insert(table).values(**values).returning(table))).one(), owner)


@dataclass(frozen=True, kw_only=True)
class HeldKey:
    """A key, and whom it acts as."""

    key: KeyRecord
    user: UserRecord | None
    """None where that is a project."""


@cache
def _holding(holder: Holder) -> Select[Any]:
    """Return the query of a kind of keys with their owners: every request asks it, so it is put together once."""
    table, owner = _TABLES[holder]
    if holder is Holder.PROJECT:
        return select(table).join(projects, projects.c.id == table.c.project_id).where(projects.c.deleted.is_(None))
    named = (column.label(f"{_USER}{column.name}") for column in users.c)
    return select(table, *named).join(users, users.c.id == table.c[owner])


@cache
def _by_digest(holder: Holder) -> Select[Any]:
    return _holding(holder).where(_TABLES[holder][0].c.hash == bindparam("digest"))


@cache
def _by_id(holder: Holder) -> Select[Any]:
    table, owner = _TABLES[holder]
    return _holding(holder).where(table.c.id == bindparam("key_id"), table.c[owner] == bindparam("owner_id"))


async def find_key_by_digest(connection: AsyncConnection, holder: Holder, digest: str) -> HeldKey | None:
    """Return the key of a hash with its owner, be it valid or not; of a project that is deleted, none."""
    row = (await connection.execute(_by_digest(holder), {"digest": digest})).one_or_none()
    if row is None or not hmac.compare_digest(row._mapping["hash"], digest):  # noqa: SLF001  see above
        return None
    return _held(row, holder)


async def find_held_key(connection: AsyncConnection, holder: Holder, *, owner_id: UUID, key_id: UUID) -> HeldKey | None:
    """Return a key with its owner, be it valid or not; of a project that is deleted, none."""
    values = {"owner_id": owner_id, "key_id": key_id}
    row = (await connection.execute(_by_id(holder), values)).one_or_none()
    return None if row is None else _held(row, holder)


def _held(row: Row[Any], holder: Holder) -> HeldKey:
    user = None if holder is Holder.PROJECT else user_of(row._mapping, _USER)  # noqa: SLF001  see above
    return HeldKey(key=_key(row, _TABLES[holder][1]), user=user)


async def find_key(connection: AsyncConnection, holder: Holder, *, owner_id: UUID, key_id: UUID) -> KeyRecord | None:
    """Return a key of an owner."""
    table, owner = _TABLES[holder]
    query = select(table).where(and_(table.c.id == key_id, table.c[owner] == owner_id))
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _key(row, owner)


async def list_keys(
    connection: AsyncConnection,
    holder: Holder,
    *,
    page: Page,
    owner_id: UUID,
    only_id: UUID | None = None,
    revoked: bool = False,
    wanted: Selection = EVERYTHING,
) -> tuple[tuple[KeyRecord, ...], int]:
    """Return a page of an owner's keys, and how many match.

    Args:
        connection: Of a read or write.
        holder: Which kind.
        page: Which part.
        owner_id: Whose.
        only_id: No other than this one: a key sees only itself.
        revoked: Those that are revoked, instead of those that are not.
        wanted: Which of them.
    """
    table, owner = _TABLES[holder]
    query = select(table).where(table.c[owner] == owner_id)
    query = query.where(table.c.revoked.is_not(None) if revoked else table.c.revoked.is_(None))
    if only_id is not None:
        query = query.where(table.c.id == only_id)
    rows, total = await selected_rows(connection, query, table, wanted, page)
    return tuple(_key(row, owner) for row in rows), total


async def rename_key(
    connection: AsyncConnection, holder: Holder, *, owner_id: UUID, key_id: UUID, name: ResourceName, now: datetime
) -> KeyRecord | None:
    """Give a key another name; None when the owner has no such key."""
    table, owner = _TABLES[holder]
    named = and_(table.c.id == key_id, table.c[owner] == owner_id)
    changed = update(table).where(named).values(name=name, modified=now).returning(table)
    row = (await connection.execute(changed)).one_or_none()
    return None if row is None else _key(row, owner)


async def revoke_key(
    connection: AsyncConnection, holder: Holder, *, owner_id: UUID, key_id: UUID, now: datetime
) -> KeyRecord | None:
    """Make a key invalid for ever; None when the owner has no such key.

    Raises:
        Conflict: It is revoked already.
    """
    table, owner = _TABLES[holder]
    named = and_(table.c.id == key_id, table.c[owner] == owner_id, table.c.revoked.is_(None))
    changed = update(table).where(named).values(revoked=now, modified=now).returning(table)
    row = (await connection.execute(changed)).one_or_none()
    if row is not None:
        return _key(row, owner)
    if await find_key(connection, holder, owner_id=owner_id, key_id=key_id) is None:
        return None
    raise Conflict("this key is revoked already", field="key")


async def revoke_keys(connection: AsyncConnection, holder: Holder, *, owner_id: UUID, now: datetime) -> int:
    """Make all keys of an owner invalid for ever, and return how many were valid until now."""
    table, owner = _TABLES[holder]
    named = and_(table.c[owner] == owner_id, table.c.revoked.is_(None))
    return (await connection.execute(update(table).where(named).values(revoked=now, modified=now))).rowcount
