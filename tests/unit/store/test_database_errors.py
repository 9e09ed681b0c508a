"""What callers are told of a database's errors; real ones are in the integration and fault tests."""

from __future__ import annotations

import sqlite3

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from metalmark.model import Conflict, MetalmarkError, NotFound, StoreAway, StoreBusy, StoreFull
from metalmark.store.database_errors import ended_transaction, meaning_of, wants_another_try


def of_sqlite(code: int, message: str = "") -> DBAPIError:
    cause = sqlite3.OperationalError(message)
    cause.sqlite_errorcode = code
    return DBAPIError("SELECT 1", None, cause)


def of_postgresql(state: str) -> DBAPIError:
    return DBAPIError("SELECT 1", None, psycopg.errors.lookup(state)("secret details"))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (of_sqlite(sqlite3.SQLITE_BUSY), StoreBusy),
        (of_sqlite(sqlite3.SQLITE_BUSY_SNAPSHOT), StoreBusy),
        (of_sqlite(sqlite3.SQLITE_FULL), StoreFull),
        (of_sqlite(sqlite3.SQLITE_IOERR_READ), StoreAway),
        (of_sqlite(sqlite3.SQLITE_CANTOPEN), StoreAway),
        (of_sqlite(sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY), Conflict),
        (of_postgresql("40001"), StoreBusy),
        (of_postgresql("40P01"), StoreBusy),
        (of_postgresql("55P03"), StoreBusy),
        (of_postgresql("57014"), StoreBusy),
        (of_postgresql("53100"), StoreFull),
        (of_postgresql("57P01"), StoreAway),
        (of_postgresql("08006"), StoreAway),
        (of_postgresql("23503"), Conflict),
        (PoolTimeout(), StoreBusy),
        (TimeoutError(), StoreAway),
        (ConnectionRefusedError(), StoreAway),
        (DisconnectionError(), StoreAway),
    ],
)
def test_an_error_of_a_database_has_a_meaning(error: Exception, kind: type[MetalmarkError]) -> None:
    assert type(meaning_of(error)) is kind


@pytest.mark.parametrize("error", [of_sqlite(sqlite3.SQLITE_ERROR), of_postgresql("42601"), ValueError("a bug")])
def test_a_bug_has_none(error: Exception) -> None:
    assert meaning_of(error) is None


def test_an_error_of_ours_means_itself() -> None:
    error = NotFound("job", "x")
    assert meaning_of(error) is error


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ("UNIQUE constraint failed: specs.slug", "slug"),
        ("UNIQUE constraint failed: projects.organization_id, projects.name", "name"),
        ("UNIQUE constraint failed: index 'uq_heads_current'", "branch_id"),
        ("UNIQUE constraint failed: something else", "something else"),
    ],
)
def test_a_conflict_names_the_field_that_the_request_chose(message: str, field: str) -> None:
    meaning = meaning_of(of_sqlite(sqlite3.SQLITE_CONSTRAINT_UNIQUE, message))
    assert isinstance(meaning, Conflict)
    assert meaning.field == field


def test_what_the_database_says_of_values_is_not_repeated() -> None:
    assert "secret" not in str(meaning_of(of_postgresql("08006")))


def test_only_other_writes_are_a_reason_for_another_try() -> None:
    assert wants_another_try(of_postgresql("40001"))
    assert wants_another_try(of_postgresql("40P01"))
    assert not wants_another_try(of_postgresql("23505"))
    assert not wants_another_try(of_sqlite(sqlite3.SQLITE_BUSY))


def test_a_broken_constraint_leaves_the_transaction_as_it_was() -> None:
    assert not ended_transaction(of_sqlite(sqlite3.SQLITE_CONSTRAINT_UNIQUE))
    assert ended_transaction(of_sqlite(sqlite3.SQLITE_FULL))
