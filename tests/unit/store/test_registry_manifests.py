"""What stands against a manifest, and the order of tags, as far as neither takes a database."""

from __future__ import annotations

import pytest
from sqlalchemy.dialects import postgresql, sqlite

from metalmark.store.registry_manifests import _comes_after, _other_sizes


@pytest.mark.parametrize(
    ("said", "found", "expected"),
    [
        ({}, {"a": 1}, ()),
        ({"a": 1, "b": 2}, {"a": 1, "b": 2}, ()),
        # What is not there has no size that could be wrong.
        ({"a": 1, "b": 2}, {"a": 1}, ()),
        ({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 3, "c": 4}, ("b", "c")),
        ({"a": 0}, {"a": 1}, ("a",)),
    ],
)
def test_sizes_that_are_wrong(said: dict[str, int], found: dict[str, int], expected: tuple[str, ...]) -> None:
    assert _other_sizes(said, found) == expected


@pytest.mark.parametrize("dialect", [sqlite.dialect(), postgresql.dialect()], ids=["sqlite", "postgresql"])
def test_tags_come_by_their_letters_and_then_by_code_point(dialect: object) -> None:
    compiled = _comes_after("Beta").compile(dialect=dialect)  # type: ignore[arg-type]  # either of the two
    assert list(compiled.params.values()) == ["beta", "beta", "Beta"]
    assert "folded >" in str(compiled)
