"""The query of a list: which page, in which order; and the total beside its answer."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Literal

from fastapi import Depends, Query, Response
from pydantic import BeforeValidator

from metalmark.store import Page

DEFAULT_PER_PAGE = 8
_DECIMAL = re.compile(r"\+?[0-9]{1,20}", re.ASCII)


class Direction(StrEnum):
    """Which end of an order comes first."""

    ASCENDING = "asc"
    DESCENDING = "desc"


def _decimal(value: object) -> object:
    # Without this "8.0", " 8" and "1_0" would do for numbers.
    if isinstance(value, str) and not _DECIMAL.fullmatch(value):
        raise ValueError("this is not a whole number")
    return value


PerPage = Annotated[
    int,
    BeforeValidator(_decimal),
    Query(ge=0, le=255, description="The most items of the answer; 0 gives none of them, and the total."),
]
PageNumber = Annotated[
    int,
    BeforeValidator(_decimal),
    Query(ge=0, le=4_294_967_295, description="Which page, counted from 1; 0 is the first too."),
]
Flag = Annotated[Literal["true", "false"], Query()]
"""A query parameter that is yes or no, exactly as the wire writes it; compare it with ``"true"``."""
SortDirection = Annotated[
    Direction | None, Query(description="By default names ascend, and times descend.", alias="direction")
]
"""A route's parameter of this type is the direction that was asked for; None leaves it to the order."""
Search = Annotated[str | None, Query(description="Part of a name, a slug or a UUID; ASCII letters match either case.")]
"""A route's parameter of this type is the text that was searched for."""


def page_of(per_page: PerPage = DEFAULT_PER_PAGE, page: PageNumber = 1) -> Page:
    """Return the page that a request asks for."""
    return Page(limit=per_page, offset=max(0, page - 1) * per_page)


RequestedPage = Annotated[Page, Depends(page_of)]
"""A route's parameter of this type is the page that was asked for."""


def set_total(response: Response, total: int) -> None:
    """Say beside a page how many items there are in all (``x-total-count``)."""
    response.headers["x-total-count"] = str(total)
