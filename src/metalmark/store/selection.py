"""Things that have names: which one is meant, or which of a list are wanted, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, Table, false, or_
from sqlalchemy.ext.asyncio import AsyncConnection

from metalmark.model import Slug
from metalmark.store.columns import id_text
from metalmark.store.page import Page, rows_of

_MAX_SEARCH = 4096


class ListOrder(StrEnum):
    """By what such a list is sorted."""

    NAME = "name"
    CREATED = "created"


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which things are wanted, and in which order; by default all, by name."""

    name: str | None = None
    """Only those of exactly this name."""
    search: str | None = None
    """Only those with this in name, slug or UUID."""
    order: ListOrder = ListOrder.NAME
    """Things of the same name come by slug."""
    descending: bool = False
    """Whether the last comes first."""


EVERYTHING = Selection()


async def selected_rows(
    connection: AsyncConnection, query: Select[Any], table: Table, wanted: Selection, page: Page
) -> tuple[Sequence[Row[Any]], int]:
    """Return a page of what is wanted of a query, and how many rows that is without paging.

    Args:
        connection: Of a read or write.
        query: Without order.
        table: Of the query, with the names; one without slugs is in the order of its identifiers where names are alike.
        wanted: Which rows.
        page: Which part of them.
    """
    columns = table.c
    names = [columns[name] for name in ("name", "slug") if name in columns]
    if wanted.name is not None:
        query = query.where(columns.name == wanted.name)
    if wanted.search is not None:
        query = query.where(_matches(wanted.search, connection, *names, identifier=columns.id))
    by_name = (columns.name, columns.slug if "slug" in columns else columns.id)
    order = by_name if wanted.order is ListOrder.NAME else (columns.created, columns.id)
    ordered = query.order_by(*(column.desc() if wanted.descending else column for column in order))
    return await rows_of(connection, ordered, page)


def is_called(table: Table, identifier: UUID | str) -> ColumnElement[bool]:
    """Return the condition that a thing has this UUID, slug or, if it is neither, name."""
    if isinstance(identifier, UUID):
        return table.c.id == identifier
    return (table.c.slug if isinstance(identifier, Slug) else table.c.name) == identifier


def _matches(
    text: str, connection: AsyncConnection, *names: ColumnElement[str], identifier: ColumnElement[UUID]
) -> ColumnElement[bool]:
    """Return the condition that one of the names or the identifier contains a text.

    ``%`` and ``_`` in it stand for any run of characters and any one, as users of the wire know it; ASCII letters match
    either case.
    """
    if "\x00" in text or len(text) > _MAX_SEARCH:
        # No name holds it. PostgreSQL takes the one for a message's end, SQLite refuses patterns of 50,000 bytes.
        return false()
    # PostgreSQL alone gives the backslash a meaning unless told otherwise.
    pattern = f"%{text}%".replace("\\", "\\\\")
    texts = (*names, id_text(identifier, connection.dialect.name))
    return or_(*(column.ilike(pattern, escape="\\") for column in texts))
