"""Inserting what has a slug that must be free."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from metalmark.model import Conflict, Slug, with_suffix

_TRIES = 8


async def insert_with_slug(
    connection: AsyncConnection, table: Table, *, slug: Slug, values: Mapping[str, object], scope: str | None = None
) -> Slug:
    """Insert a row under a slug or, where that is taken, under one with a random suffix; return the slug it got.

    Args:
        connection: Of a write.
        table: Its slugs are unique, within ``scope`` if there is one.
        slug: The slug that is tried first.
        values: The other columns.
        scope: The column that the slug is unique within (``project_id``).

    Raises:
        Conflict: Another column's constraint is broken.
    """
    unique = [scope, "slug"] if scope else ["slug"]
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    tried = slug
    for _ in range(_TRIES):
        # Not a look first and an insert then: another process may take the slug in between.
        insert = dialect.insert(table).values(**values, slug=str(tried)).on_conflict_do_nothing(index_elements=unique)
        row = (await connection.execute(insert.returning(table.c.slug))).one_or_none()
        if row is not None:
            return tried
        tried = with_suffix(slug)
    raise Conflict(f"the slug {slug} is taken, and so is it with a suffix", field="slug")
