from __future__ import annotations

import pytest
from fastapi import APIRouter, Response
from tests.unit.server.framed import Framed

from metalmark.server.paging import Flag, RequestedPage, Search, SortDirection, set_total

pytestmark = pytest.mark.anyio
router = APIRouter()


@router.get("/list")
async def listing(
    page: RequestedPage,
    response: Response,
    direction: SortDirection = None,
    search: Search = None,
    archived: Flag = "false",
) -> list[object]:
    set_total(response, 41)
    return [page.limit, page.offset, direction, search, archived == "true"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [8, 0, None, None, False]),
        ("?page=0", [8, 0, None, None, False]),
        ("?page=3&per_page=10", [10, 20, None, None, False]),
        ("?per_page=0", [0, 0, None, None, False]),
        ("?per_page=255&page=4294967295", [255, 255 * 4294967294, None, None, False]),
        ("?direction=desc&archived=true&search=%25", [8, 0, "desc", "%", True]),
        ("?unknown=1&unknown=2", [8, 0, None, None, False]),
    ],
)
async def test_a_page_is_a_limit_and_an_offset(query: str, expected: list[object]) -> None:
    answer = await Framed(router).call("GET", f"/list{query}")
    assert answer.document == expected
    assert answer.headers["x-total-count"] == "41"


@pytest.mark.parametrize(
    "query",
    [
        "per_page=256",
        "per_page=-1",
        "per_page=8.0",
        "per_page=%208",
        "per_page=1_0",
        "per_page=",
        "per_page=%D9%A3",
        "page=4294967296",
        "page=x",
        "direction=DESC",
        "archived=1",
        "archived=True",
        "archived=",
        "per_page=8&per_page=8",
    ],
)
async def test_what_is_no_page_is_400(query: str) -> None:
    assert (await Framed(router).call("GET", f"/list?{query}")).status == 400
