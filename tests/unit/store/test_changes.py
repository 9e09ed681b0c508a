from __future__ import annotations

from datetime import UTC, datetime

import pytest

from metalmark.store.changes import archived_at, given

NOW = datetime(2026, 1, 31, tzinfo=UTC)


def test_none_leaves_a_column_and_false_does_not() -> None:
    assert given(name="x", slug=None, admin=False, url="") == {"name": "x", "admin": False, "url": ""}


@pytest.mark.parametrize(("archived", "expected"), [(None, {}), (True, {"archived": NOW}), (False, {"archived": None})])
def test_the_archive_is_entered_left_or_not_looked_at(archived: bool | None, expected: dict[str, object]) -> None:
    assert archived_at(NOW, archived=archived) == expected
