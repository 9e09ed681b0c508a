"""The SQLite driver, with one message to its thread for each statement.

The driver sends four (make a cursor, execute, fetch, close), and on a busy machine waking a thread takes longer than
most statements. Rows come all at once: every query of this package is bounded.

A transaction that only reads costs no messages of its own: it begins together with its first statement, which is when
it begins for SQLite anyway, and nobody waits for its end.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Self

import aiosqlite

_BEGIN = "BEGIN"
_Ran = tuple[Any, list[Any], int, int | None]


def _run(connection: sqlite3.Connection, statement: str, parameters: Sequence[Any]) -> _Ran:
    cursor = connection.execute(statement, parameters)
    try:
        rows = cursor.fetchall() if cursor.description else []
        return cursor.description, rows, cursor.rowcount, cursor.lastrowid
    finally:
        cursor.close()


def _run_begun(connection: sqlite3.Connection, statement: str, parameters: Sequence[Any]) -> _Ran:
    connection.execute(_BEGIN).close()
    return _run(connection, statement, parameters)


def _run_many(connection: sqlite3.Connection, statement: str, parameters: Sequence[Sequence[Any]]) -> _Ran:
    cursor = connection.executemany(statement, parameters)
    try:
        return cursor.description, [], cursor.rowcount, cursor.lastrowid
    finally:
        cursor.close()


class WholeCursor:
    """What came of one statement. Its methods are those that SQLAlchemy uses of the driver's cursors."""

    def __init__(self, connection: WholeConnection) -> None:
        self._connection = connection
        self._rows: list[Any] = []
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.arraysize = 1

    async def __aenter__(self) -> Self:
        return self

    async def execute(self, statement: str, parameters: Sequence[Any] = ()) -> WholeCursor:
        """Run a statement and take all of its rows."""
        if statement == _BEGIN and self._connection.reads:
            self._connection.begins = True
            return self._keep((None, [], -1, None))
        run, self._connection.begins = _run_begun if self._connection.begins else _run, False
        return self._keep(await self._send(run, statement, parameters))

    async def executemany(self, statement: str, parameters: Sequence[Sequence[Any]]) -> WholeCursor:
        """Run a statement once for each set of parameters."""
        return self._keep(await self._send(_run_many, statement, parameters))

    async def fetchall(self) -> list[Any]:
        """Return the rows that were not fetched yet."""
        rows, self._rows = self._rows, []
        return rows

    async def close(self) -> None:
        """There is nothing open."""

    async def _send(self, function: Any, statement: str, parameters: Any) -> _Ran:  # noqa: ANN401 - the driver's
        # Private, and the reason for a bound on the driver's version: there is no other way to its thread for more than
        # one step.
        send: Callable[..., Awaitable[_Ran]] = self._connection._execute  # noqa: SLF001 - as said
        return await send(function, self._connection._conn, statement, parameters)  # noqa: SLF001 - as said

    def _keep(self, ran: _Ran) -> WholeCursor:
        self.description, self._rows, self.rowcount, self.lastrowid = ran
        return self


class WholeConnection(aiosqlite.Connection):
    """A connection whose cursors take a statement and its rows in one go."""

    reads = False
    """Whether its transactions only read."""
    begins = False
    """Whether a transaction was begun that SQLite does not know of yet."""

    def cursor(self) -> WholeCursor:  # type: ignore[override]  # SQLAlchemy wants no more of a cursor
        """Return a cursor."""
        return WholeCursor(self)

    async def rollback(self) -> None:
        """End a transaction without a change."""
        if not self.reads:
            await super().rollback()
            return
        begins, self.begins = self.begins, False
        if not begins:
            # Its thread does one thing after the other. Should this fail, the next transaction cannot begin.
            self._tx.put_nowait((None, self._conn.rollback))


async def connect(path: Path, *, reads: bool = False) -> WholeConnection:
    """Open a database file, in autocommit: transactions begin where SQLAlchemy says so.

    Args:
        path: The file.
        reads: Whether its transactions will only read.
    """

    def opened() -> sqlite3.Connection:
        return sqlite3.connect(path, isolation_level=None, check_same_thread=False)

    connection = WholeConnection(opened, iter_chunk_size=64)
    # A thread that is still there must not keep the process from ending.
    connection._thread.daemon = True  # noqa: SLF001 - as SQLAlchemy does it
    await connection
    connection.reads = reads
    return connection
