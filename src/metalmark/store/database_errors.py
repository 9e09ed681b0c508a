"""What a database's error means: a conflict, a reason to try again, or a database that is busy, full or away."""

from __future__ import annotations

import re
import sqlite3

import psycopg
from sqlalchemy import Constraint, Index
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from metalmark.model import Conflict, MetalmarkError, StoreAway, StoreBusy, StoreFull
from metalmark.store.columns import metadata

_SQLITE_COLUMNS = re.compile(r"constraint failed: (?!index )(.+)")
_SQLITE_INDEX = re.compile(r"constraint failed: index '(.+)'")
_SQLITE_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
_SQLITE_FULL = frozenset({sqlite3.SQLITE_FULL})
_SQLITE_AWAY = frozenset(
    {
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
    }
)
# SQLSTATE: serialization failure, deadlock.
_POSTGRESQL_AGAIN = frozenset({"40001", "40P01"})
# SQLSTATE: foreign key, unique.
_POSTGRESQL_BROKEN = frozenset({"23503", "23505"})
# SQLSTATE: lock not available, query canceled (a statement or lock timeout), too many connections.
_POSTGRESQL_BUSY = frozenset({"55P03", "57014", "53300"})
# SQLSTATE: disk full, out of memory.
_POSTGRESQL_FULL = frozenset({"53100", "53200"})
_PRIMARY_CODE = 0xFF


def wants_another_try(error: BaseException) -> bool:
    """Whether a transaction failed only because of another at the same time."""
    return isinstance(error, DBAPIError) and _sqlstate(error) in _POSTGRESQL_AGAIN


def may_be_of_a_race(error: BaseException) -> bool:
    """Whether a constraint was broken, maybe by a row that another write committed after this one had looked."""
    return isinstance(error, DBAPIError) and _sqlstate(error) in _POSTGRESQL_BROKEN


def was_cut_off(error: BaseException) -> bool:
    """Whether the connection is gone."""
    return isinstance(error, DisconnectionError) or (isinstance(error, DBAPIError) and error.connection_invalidated)


def ended_transaction(error: BaseException) -> bool:
    """Whether SQLite may have rolled the whole transaction back by itself."""
    code = _sqlite_code(error)
    return code is not None and code & _PRIMARY_CODE != sqlite3.SQLITE_CONSTRAINT


def meaning_of(error: BaseException) -> MetalmarkError | None:
    """Return the error that callers know for one of the database, or None for one that is a bug."""
    if isinstance(error, MetalmarkError):
        return error
    if isinstance(error, PoolTimeout):
        return StoreBusy("no connection to the database became free in time")
    if isinstance(error, TimeoutError):
        return StoreAway("the database did not answer in time")
    if isinstance(error, OSError):
        return StoreAway("the database cannot be reached")
    if isinstance(error, DisconnectionError):
        return StoreAway("the connection to the database broke off")
    if not isinstance(error, DBAPIError):
        return None
    return _of_sqlite(error) if isinstance(error.orig, sqlite3.Error) else _of_postgresql(error)


def _sqlite_code(error: BaseException) -> int | None:
    if isinstance(error, DBAPIError) and isinstance(error.orig, sqlite3.Error):
        return getattr(error.orig, "sqlite_errorcode", None)
    return None


def _of_sqlite(error: DBAPIError) -> MetalmarkError | None:
    code = _sqlite_code(error)
    if code is None:
        # The driver's own errors: a connection that was closed under a statement.
        return StoreAway("the connection to the database broke off") if was_cut_off(error) else None
    primary = code & _PRIMARY_CODE
    if primary == sqlite3.SQLITE_CONSTRAINT:
        return _sqlite_conflict(code, str(error.orig))
    if primary in _SQLITE_BUSY:
        return StoreBusy("the database is locked by another program")
    if primary in _SQLITE_FULL:
        return StoreFull("there is no space left for the database")
    if primary in _SQLITE_AWAY:
        return StoreAway(f"the database file cannot be used ({error.orig})")
    return None


def _sqlite_conflict(code: int, message: str) -> Conflict | None:
    if code == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
        return Conflict("something else refers to it, or what it refers to is gone")
    if code not in (sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY):
        return None
    if match := _SQLITE_INDEX.search(message):
        return _taken(_columns_of(match[1]))
    match = _SQLITE_COLUMNS.search(message)
    return _taken([name.strip().rpartition(".")[2] for name in match[1].split(",")] if match else [])


def _sqlstate(error: DBAPIError) -> str | None:
    return error.orig.sqlstate if isinstance(error.orig, psycopg.Error) else None


def _of_postgresql(error: DBAPIError) -> MetalmarkError | None:
    state = _sqlstate(error)
    cause = error.orig
    if state == "23503":
        return Conflict("something else refers to it, or what it refers to is gone")
    if state == "23505" and isinstance(cause, psycopg.Error):
        return _taken(_columns_of(cause.diag.constraint_name or ""))
    if state in _POSTGRESQL_AGAIN:
        return StoreBusy("other writes kept getting in the way of this one")
    if state in _POSTGRESQL_BUSY:
        return StoreBusy("the database did not get to it in time")
    if state in _POSTGRESQL_FULL:
        return StoreFull("the database has no space left")
    gone = was_cut_off(error) or state is None or state.startswith(("08", "57P", "25006", "58"))
    if gone and isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError | psycopg.InternalError):
        return StoreAway("the database cannot be reached, or is restarting")
    return None


def _columns_of(constraint: str) -> list[str]:
    for table in metadata.tables.values():
        found: list[Constraint | Index] = [*table.constraints, *table.indexes]
        for each in found:
            if each.name == constraint:
                return [column.name for column in each.columns]  # type: ignore[union-attr]  # all of ours have columns
    return []


def _taken(columns: list[str]) -> Conflict:
    # The last column is the one that the request chose; those before it say where it has to be unique.
    field = columns[-1] if columns else ""
    return Conflict(f"this {field or 'value'} is taken already", field=field)
