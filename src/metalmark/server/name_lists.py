"""The query of lists that are sorted by name."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from fastapi import Query

from metalmark.server.paging import Direction, Flag
from metalmark.wire import ResourceNameField


class NameOrder(StrEnum):
    """What such a list can be sorted by."""

    NAME = "name"


NameSort = Annotated[NameOrder, Query(description="What to sort by.")]
NameFilter = Annotated[ResourceNameField | None, Query(description="Only those of exactly this name.")]
RevokedFilter = Annotated[Flag, Query(description="Those that are revoked, instead of those that are not.")]
HardFlag = Annotated[Flag, Query(description="For good; for administrators of the server.")]


def is_descending(direction: Direction | None) -> bool:
    """Whether the last name comes first; by default the first does."""
    return direction is Direction.DESCENDING
