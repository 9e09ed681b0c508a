"""The query of lists of things that have names: which are wanted, in which order."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from fastapi import Depends, Query

from metalmark.server.paging import Direction, Flag, Search, SortDirection
from metalmark.store import ListOrder, Selection
from metalmark.wire import BranchNameField, ResourceNameField


class NameOrder(StrEnum):
    """What such a list can be sorted by."""

    NAME = "name"


RevokedFilter = Annotated[Flag, Query(description="Those that are revoked, instead of those that are not.")]
ArchivedFilter = Annotated[Flag, Query(description="Whether archived ones come too.")]
ArchivedInstead = Annotated[Flag, Query(description="Those that are archived, instead of those that are not.")]
HardFlag = Annotated[Flag, Query(description="For good; for administrators of the server.")]
_NameSort = Annotated[NameOrder, Query(description="What to sort by.")]
_EitherSort = Annotated[ListOrder, Query(description="What to sort by.")]
_Name = Annotated[ResourceNameField | None, Query(description="Only those of exactly this name.")]
_BranchName = Annotated[BranchNameField | None, Query(description="Only the one of exactly this name.")]


def _by_name(
    sort: _NameSort = NameOrder.NAME,  # noqa: ARG001  there is one order; any other name is refused
    direction: SortDirection = None,
    name: _Name = None,
    search: Search = None,
) -> Selection:
    return Selection(name=name, search=search, descending=direction is Direction.DESCENDING)


def _branches(
    sort: _NameSort = NameOrder.NAME,  # noqa: ARG001  as above
    direction: SortDirection = None,
    name: _BranchName = None,
    search: Search = None,
) -> Selection:
    return Selection(name=name, search=search, descending=direction is Direction.DESCENDING)


def _by_either(
    sort: _EitherSort = ListOrder.NAME, direction: SortDirection = None, name: _Name = None, search: Search = None
) -> Selection:
    # Names ascend unless asked otherwise, and times descend.
    descending = sort is ListOrder.CREATED if direction is None else direction is Direction.DESCENDING
    return Selection(name=name, search=search, order=sort, descending=descending)


WantedNames = Annotated[Selection, Depends(_by_name)]
"""A route's parameter of this type is what is wanted of a list by name."""
WantedBranches = Annotated[Selection, Depends(_branches)]
"""The same of branches, whose names are of another kind."""
WantedOfFleet = Annotated[Selection, Depends(_by_either)]
"""The same of specs and runners, which can be sorted by their age too."""
