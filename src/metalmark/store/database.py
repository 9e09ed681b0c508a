"""The store: one database, SQLite or PostgreSQL, read and written through two doors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias, TypeVar

import anyio
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection

from metalmark.model import InputError
from metalmark.store.database_errors import meaning_of
from metalmark.store.migrations import migrate
from metalmark.store.notices import Notices
from metalmark.store.pace import Isolation, Pace
from metalmark.store.postgresql_engine import PostgresqlEngine
from metalmark.store.sqlite_engine import SqliteEngine
from metalmark.system import Clock, SystemClock

T = TypeVar("T")

Connection: TypeAlias = AsyncConnection
"""A connection in a transaction. The functions of this package take it; nobody else runs statements on it."""

Work: TypeAlias = Callable[[Connection], Awaitable[T]]


def parse_database_url(text: str) -> URL:
    """Read where a database is: ``sqlite:////var/lib/metalmark/server.db`` or ``postgresql://user@host/name``.

    Raises:
        InputError: It names no database of these two kinds. The text is not shown, as it may hold a password.
    """
    hint = "use sqlite:///FILE or postgresql://USER@HOST/NAME"
    try:
        url = make_url(text)
    except ArgumentError:
        raise InputError("database", "…", "this is not a database URL", hint=hint) from None
    kind = url.drivername.partition("+")[0]
    if kind not in ("sqlite", "postgresql", "postgres"):
        raise InputError("database", kind, "there is no such kind of database", hint=hint)
    if kind == "sqlite" and (not url.database or url.database == ":memory:"):
        raise InputError("database", "sqlite", "a file has to be named", hint=hint)
    if any("password" in name for name in url.query):
        # There it would be shown wherever the rest of the URL is, in the arguments of pg_dump too.
        raise InputError("database", kind, "a password stands before the host", hint="postgresql://USER:…@HOST/NAME")
    return url.set(drivername="sqlite" if kind == "sqlite" else "postgresql")


class Store:
    """An open database. `open` makes one; ``async with`` or `close` ends it, in the task that opened it."""

    def __init__(self, engine: SqliteEngine | PostgresqlEngine, notices: Notices, pace: Pace, url: URL) -> None:
        self._engine = engine
        self._pace = pace
        self._stack = AsyncExitStack()
        self.url = url
        """Where the database is. It may hold a password: not for logs."""
        self.notices = notices
        """What committed writes tell, of all processes on the database."""

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        pace: Pace | None = None,
        migrated: bool = True,
        alone: bool = False,
        clock: Clock | None = None,
    ) -> Store:
        """Open a database, and bring its tables up to date.

        Args:
            url: Where it is, as `parse_database_url` takes it.
            pace: Deadlines and sizes; the defaults when None.
            migrated: Whether to bring the tables up to date; if not, call `migrate`.
            alone: Whether to refuse a database file that another server has opened so. PostgreSQL is for several.
            clock: Where the time comes from that is kept beside a change of tables; the machine's when None.

        Raises:
            InputError: The URL is none.
            StoreAway: The database cannot be reached or made.
            NewerDatabase: A newer version of this program changed the tables.
            StableError: Another server uses the database file.
        """
        pace = pace or Pace()
        parsed = parse_database_url(url)
        notices = Notices()
        engine: SqliteEngine | PostgresqlEngine
        if parsed.drivername == "sqlite":
            engine = SqliteEngine(Path(parsed.database or ""), pace, notices, alone=alone)
        else:
            engine = PostgresqlEngine(parsed, pace, notices)
        store = cls(engine, notices, pace, parsed)
        await store._stack.enter_async_context(engine.opened())
        try:
            if migrated:
                await store.migrate((clock or SystemClock()).now())
        except BaseException:
            await store.close()
            raise
        return store

    async def migrate(self, now: datetime, *, until: str | None = None) -> tuple[str, ...]:
        """Bring the tables up to date, and return the names of the steps that were taken.

        Args:
            now: The time to keep beside the steps.
            until: The last step to take; None for all.

        Raises:
            NewerDatabase: A newer version of this program changed them.
            StoreUnavailable: The database is busy, full or away.
        """

        async def work(connection: Connection) -> tuple[str, ...]:
            return await migrate(connection, now=now, until=until)

        return await self.write(work, isolation=Isolation.READ_COMMITTED)

    @property
    def engine_name(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self._engine.name

    async def close(self) -> None:
        """End all subscriptions, let writes that wait finish, and close every connection."""
        self.notices.end()
        await self._stack.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What ended the block goes on by itself: through the task group it would come out wrapped.
        await self.close()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Connection]:
        """Give a connection that sees one state of the database, and cannot change it.

        Raises:
            StoreUnavailable: The database is busy or away.
        """
        try:
            with anyio.fail_after(self._pace.read_s):
                async with self._engine.read() as connection:
                    yield connection
        except Exception as error:
            meaning = meaning_of(error)
            if meaning is None or meaning is error:
                raise
            raise meaning from error

    async def write(self, work: Work[T], *, isolation: Isolation = Isolation.SERIALIZABLE) -> T:
        """Carry out a work in a transaction, and return its result once that is committed.

        Args:
            work: Gets the connection. It may be called more than once, when other writes got in the way, so it changes
                nothing but the database, and reads again what it decides by.
            isolation: What PostgreSQL has to keep apart. ``READ_COMMITTED`` for hot single statements.

        Raises:
            Conflict: A value is taken, or something refers to what goes.
            StoreUnavailable: The database is busy, full or away; nothing was changed, unless the connection broke
                during the commit itself.
            MetalmarkError: What the work raised; nothing was changed.
        """
        try:
            return await self._engine.write(work, isolation)
        except Exception as error:
            meaning = meaning_of(error)
            if meaning is None or meaning is error:
                raise
            raise meaning from error
