from __future__ import annotations

import pytest

from metalmark.server.name_lists import is_descending
from metalmark.server.paging import Direction


@pytest.mark.parametrize(
    ("direction", "descending"), [(None, False), (Direction.ASCENDING, False), (Direction.DESCENDING, True)]
)
def test_names_ascend_unless_asked_otherwise(direction: Direction | None, descending: bool) -> None:
    assert is_descending(direction) is descending
