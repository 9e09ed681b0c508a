"""What the column types make of values, and back; and that both engines get what sorts and compares alike."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql, sqlite

from metalmark.model import new_id
from metalmark.store.columns import Document, Identifier, Instant, Words, id_text
from metalmark.store.tables import specs

SQLITE = sqlite.dialect()
POSTGRESQL = postgresql.dialect()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(st.datetimes(timezones=st.just(UTC)))
def test_an_instant_comes_back_as_it_was(instant: datetime) -> None:
    column = Instant()
    assert column.process_result_value(column.process_bind_param(instant, SQLITE), SQLITE) == instant


def test_an_instant_is_the_same_number_in_any_zone() -> None:
    east = datetime(2026, 1, 31, 12, tzinfo=timezone(timedelta(hours=3)))
    assert Instant().process_bind_param(east, POSTGRESQL) == Instant().process_bind_param(
        datetime(2026, 1, 31, 9, tzinfo=UTC), SQLITE
    )


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        Instant().process_bind_param(datetime(2026, 1, 31), SQLITE)


@given(st.uuids())
def test_an_identifier_is_sixteen_bytes_on_sqlite(uuid: UUID) -> None:
    stored = Identifier().process_bind_param(uuid, SQLITE)
    assert isinstance(stored, bytes)
    assert len(stored) == 16
    assert Identifier().process_result_value(stored, SQLITE) == uuid


def test_an_identifier_is_a_uuid_on_postgresql() -> None:
    uuid = new_id()
    assert Identifier().process_bind_param(uuid, POSTGRESQL) is uuid


@given(JSON)
def test_a_document_is_ascii_and_comes_back_as_it_was(value: object) -> None:
    stored = Document().process_bind_param(value, POSTGRESQL)
    assert stored is None or (stored.isascii() and "\0" not in stored)
    assert Document().process_result_value(stored, POSTGRESQL) == value


def test_text_sorts_by_code_point_on_postgresql() -> None:
    assert 'COLLATE "C"' in str(Words().load_dialect_impl(POSTGRESQL).compile(POSTGRESQL))


def test_an_identifier_is_searched_by_its_hyphenated_text() -> None:
    on_sqlite = str(id_text(specs.c.id, "sqlite").compile(dialect=SQLITE))
    assert on_sqlite.count("substr") == 5
    assert "CAST" in str(id_text(specs.c.id, "postgresql").compile(dialect=POSTGRESQL)).upper()
