"""Lists: one page of what matches, and how many match in all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select, func
from sqlalchemy.ext.asyncio import AsyncConnection

_MAX_OFFSET = 2**62


@dataclass(frozen=True, kw_only=True)
class Page:
    """Which part of a list is wanted."""

    limit: int
    """The most items; 0 gives none, and the total all the same."""
    offset: int = 0
    """How many items come before it."""


ALL = Page(limit=2**31)
"""Everything. For lists that are short by their nature."""


async def rows_of(connection: AsyncConnection, query: Select[Any], page: Page) -> tuple[Sequence[Row[Any]], int]:
    """Return a page of an ordered query without grouping, and the number of rows without paging."""
    # Not around the query as a subquery: this way an index can do where no column is needed.
    count = query.with_only_columns(func.count(), maintain_column_froms=True).order_by(None)
    total = (await connection.execute(count)).scalar_one()
    if page.limit == 0 or page.offset > total:
        return (), total
    part = query.limit(page.limit).offset(min(page.offset, _MAX_OFFSET))
    return (await connection.execute(part)).all(), total
