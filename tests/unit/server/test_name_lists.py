from __future__ import annotations

import pytest
from fastapi import APIRouter
from tests.unit.server.framed import Framed

from metalmark.server.name_lists import WantedBranches, WantedNames, WantedOfFleet
from metalmark.store import Selection

pytestmark = pytest.mark.anyio
router = APIRouter()


def shown(wanted: Selection) -> list[object]:
    return [wanted.name, wanted.search, wanted.order.value, wanted.descending]


@router.get("/names")
async def names(wanted: WantedNames) -> list[object]:
    return shown(wanted)


@router.get("/branches")
async def branches(wanted: WantedBranches) -> list[object]:
    return shown(wanted)


@router.get("/fleet")
async def fleet(wanted: WantedOfFleet) -> list[object]:
    return shown(wanted)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("names", [None, None, "name", False]),
        ("names?sort=name&direction=asc", [None, None, "name", False]),
        ("names?direction=desc&name=Ada%20L&search=%25", ["Ada L", "%", "name", True]),
        ("branches?direction=desc&name=a/b&search=x", ["a/b", "x", "name", True]),
        ("branches", [None, None, "name", False]),
        ("fleet", [None, None, "name", False]),
        ("fleet?sort=created", [None, None, "created", True]),
        ("fleet?sort=created&direction=asc", [None, None, "created", False]),
        ("fleet?sort=name&direction=desc&name=n&search=s", ["n", "s", "name", True]),
    ],
)
async def test_names_ascend_and_times_descend_unless_asked_otherwise(asked: str, expected: list[object]) -> None:
    assert (await Framed(router).call("GET", f"/{asked}")).document == expected


@pytest.mark.parametrize("asked", ["names?sort=created", "branches?sort=slug", "fleet?sort=slug", "branches?name=a..b"])
async def test_what_no_list_has_is_400(asked: str) -> None:
    assert (await Framed(router).call("GET", f"/{asked}")).status == 400
