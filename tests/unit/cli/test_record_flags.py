from __future__ import annotations

import pytest

from metalmark.cli.record_flags import archived_of, changes, only_given, truth_of
from metalmark.model import InputError


def test_archive_pair() -> None:
    assert [archived_of(True, False), archived_of(False, True), archived_of(False, False)] == [True, False, None]
    with pytest.raises(InputError):
        archived_of(True, True)


def test_truth() -> None:
    assert [truth_of("true"), truth_of("false"), truth_of(None)] == [True, False, None]


def test_absent_is_not_null_and_false_and_zero_are_given() -> None:
    assert only_given({"a": None, "b": False, "c": 0, "d": ""}) == {"b": False, "c": 0, "d": ""}


def test_only_what_can_be_cleared_is_cleared() -> None:
    assert changes({"name": "_"}, clearable={"url": "_", "spec": None}) == {"name": "_", "url": None}
    with pytest.raises(InputError, match="nothing is said"):
        changes({"name": None}, clearable={"url": None})
