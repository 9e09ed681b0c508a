"""SQLite: readers beside one writer, which commits what has gathered in one go.

A commit waits for the disk. While it does, other writes gather; the writer then carries all of them out in one
transaction, and commits once. When one of them fails, all are carried out again, each under a savepoint of its own.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
from sqlalchemy import URL, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from metalmark.model import StableError, StoreAway, StoreBusy
from metalmark.store.database_errors import ended_transaction, meaning_of
from metalmark.store.notices import Notice, Notices, take_announced
from metalmark.store.pace import Isolation, Pace
from metalmark.store.sqlite_driver import connect
from metalmark.store.turns import Turns
from metalmark.system import try_locked

T = TypeVar("T")
_GROUP_MOST = 128
_QUEUE_MOST = 8192


@dataclass(eq=False)
class _Write:
    """A write that waits, runs, or has an outcome."""

    work: Callable[[AsyncConnection], Awaitable[Any]]
    begun: anyio.Event = field(default_factory=anyio.Event)
    """It has its turn: what becomes of it is not the caller's to say any more."""
    done: anyio.Event = field(default_factory=anyio.Event)
    result: Any = None
    error: BaseException | None = None
    abandoned: bool = False

    def fail(self, error: BaseException) -> None:
        self.error = error
        self.begun.set()
        self.done.set()


def _prepare(engine: AsyncEngine, pragmas: tuple[str, ...], begin: str) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def connected(connection: Any, _record: object) -> None:  # noqa: ANN401 - the driver's
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begun(connection: Any) -> None:  # noqa: ANN401 - SQLAlchemy's
        connection.exec_driver_sql(begin)


def create_private(path: Path) -> None:
    """Make a database file that only its owner can read, unless it is there; SQLite gives its other files that mode.

    Raises:
        StoreAway: The file or its folder cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreAway(f"the database file {path} cannot be made ({error.strerror})") from error


@contextmanager
def only_server(path: Path) -> Iterator[None]:
    """Be the one server on a database file: what a second one wrote, this one's runners would never hear of.

    Raises:
        StableError: Another server uses it.
    """
    # A file of its own: closing any descriptor of the database's would take away the locks that SQLite has on it.
    with try_locked(path.with_name(f"{path.name}.lock")) as mine:
        if not mine:
            raise StableError(
                f"another server uses the database {path}",
                why="several can share PostgreSQL only",
                hint="stop the other one, or name a database of PostgreSQL",
            )
        yield


class SqliteEngine:
    """One database file of this process."""

    name = "sqlite"

    def __init__(self, path: Path, pace: Pace, notices: Notices, *, alone: bool) -> None:
        busy = f"busy_timeout={round(pace.lock_s * 1000)}"
        url = URL.create("sqlite+aiosqlite", database=str(path))
        shared = ("foreign_keys=ON", busy, "temp_store=MEMORY")
        # FULL: an acknowledged result outlives a power cut. Group commit makes it cheap.
        writing = ("journal_mode=WAL", "synchronous=FULL", "journal_size_limit=67108864", *shared)
        self._path = path
        self._alone = alone
        self._turns = Turns(pace.connections, pace.lock_s)
        self._pace = pace
        self._notices = notices
        self._writing = create_async_engine(
            url, poolclass=NullPool, async_creator=partial(connect, path), hide_parameters=True
        )
        self._reading = create_async_engine(
            url,
            async_creator=partial(connect, path, reads=True),
            hide_parameters=True,
            pool_size=pace.connections,
            max_overflow=0,
            pool_timeout=pace.lock_s,
            pool_reset_on_return=None,
        )
        _prepare(self._writing, writing, "BEGIN IMMEDIATE")
        _prepare(self._reading, (*shared, "query_only=ON"), "BEGIN")
        self._queue: deque[_Write] = deque()
        self._wake = anyio.Event()
        self._ready = False
        self._closing = False

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Have the writer at work.

        Raises:
            StoreAway: The file cannot be used.
            StableError: Another server uses it.
        """
        create_private(self._path)
        with only_server(self._path) if self._alone else nullcontext():
            async with self._at_work():
                yield

    @asynccontextmanager
    async def _at_work(self) -> AsyncIterator[None]:
        try:
            async with anyio.create_task_group() as tasks:
                await tasks.start(self._write_all)
                yield
                self._closing = True
                self._wake.set()
        finally:
            with anyio.CancelScope(shield=True):
                await self._reading.dispose()
                await self._writing.dispose()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Give a connection that sees one state of the database and cannot change it."""
        async with self._turns.turn(), self._reading.connect() as connection:
            await connection.begin()
            try:
                yield connection
            finally:
                with anyio.CancelScope(shield=True):
                    await connection.rollback()

    async def write(self, work: Callable[[AsyncConnection], Awaitable[T]], isolation: Isolation) -> T:  # noqa: ARG002 - SQLite has one
        """Carry out a work in a transaction, one after the other."""
        if self._closing or len(self._queue) >= _QUEUE_MOST:
            raise StoreBusy("more writes wait than the database can do in time")
        item = _Write(work)
        self._queue.append(item)
        self._wake.set()
        try:
            with anyio.move_on_after(self._pace.write_s):
                await item.begun.wait()
            if not item.begun.is_set():
                raise StoreBusy("the write did not get its turn in time")
            # From here on only the outcome tells whether it took place. Each of its steps has a deadline.
            await item.done.wait()
        finally:
            item.abandoned = True
        if item.error is not None:
            raise item.error
        result: T = item.result
        return result

    async def _write_all(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        task_status.started()
        connection: AsyncConnection | None = None
        try:
            while True:
                group = self._next_group()
                if not group:
                    if self._closing:
                        return
                    self._wake = anyio.Event()
                    await self._wake.wait()
                    continue
                connection = await self._carry_out(connection, group)
        finally:
            self._closing = True
            for item in self._queue:
                item.fail(StoreAway("the database was closed"))
            if connection is not None:
                with anyio.CancelScope(shield=True):
                    await connection.close()

    def _next_group(self) -> list[_Write]:
        group: list[_Write] = []
        while self._queue and len(group) < _GROUP_MOST:
            item = self._queue.popleft()
            if not item.abandoned:
                item.begun.set()
                group.append(item)
        return group

    async def _carry_out(
        self, connection: AsyncConnection | None, group: list[_Write], *, apart: bool = False
    ) -> AsyncConnection | None:
        """Carry out a group, and return the connection to go on with, if it is of further use.

        Savepoints cost as much as most works, and few works fail: there are none, until one of the group did.
        """
        spoilers: list[_Write] = []
        try:
            if connection is None:
                connection = await self._writing.connect()
            await self._try_group(connection, group, spoilers, apart=apart)
        except anyio.get_cancelled_exc_class():
            for item in group:
                item.fail(StoreAway("the database was closed"))
            raise
        except Exception as error:  # noqa: BLE001 - each waiting write is told, and the writer lives on
            # A work that raised an error of its own leaves a connection that works; its transaction was rolled back.
            if connection is not None and (not spoilers or _cuts_short(error)):
                await _discard(connection)
                connection = None
            unfinished = [item for item in group if not item.done.is_set()]
            if spoilers and len(group) > 1 and not apart and not _cuts_short(error):
                return await self._carry_out(connection, unfinished, apart=True)
            # One whose work ended the transaction takes the error with it. Otherwise it was the beginning or the commit
            # that failed, for all of them.
            for item in spoilers or unfinished:
                item.fail(meaning_of(error) or error)
            rest = [item for item in unfinished if not item.done.is_set()]
            return await self._carry_out(connection, rest, apart=apart) if rest else connection
        return connection

    async def _try_group(
        self, connection: AsyncConnection, group: list[_Write], spoilers: list[_Write], *, apart: bool
    ) -> None:
        """Carry out a group in one transaction; a work that ended it as a whole is added to the spoilers."""
        take_announced(connection)
        notices: list[Notice] = []
        done: list[_Write] = []
        async with connection.begin():
            for item in group:
                spoilers.append(item)
                error = await self._try_one(connection, item, apart=apart)
                spoilers.remove(item)
                announced = take_announced(connection)
                if error is None:
                    done.append(item)
                    notices += announced
                else:
                    item.fail(error)
        for item in done:
            item.done.set()
        self._notices.deliver(notices)

    async def _try_one(self, connection: AsyncConnection, item: _Write, *, apart: bool) -> BaseException | None:
        """Carry out one work; return its error when the transaction can go on without it."""
        savepoint = await connection.begin_nested() if apart else None
        try:
            with anyio.fail_after(self._pace.write_s):
                item.result = await item.work(connection)
        except Exception as error:
            # A savepoint is gone with its transaction, and a work that was cut short may have left anything.
            if savepoint is None or _cuts_short(error):
                raise
            await savepoint.rollback()
            return meaning_of(error) or error
        if savepoint is not None:
            await savepoint.commit()
        return None


def _cuts_short(error: Exception) -> bool:
    return ended_transaction(error) or isinstance(error, TimeoutError)


async def _discard(connection: AsyncConnection) -> None:
    with anyio.CancelScope(shield=True):
        try:
            await connection.invalidate()
            await connection.close()
        except (SQLAlchemyError, OSError, ValueError):
            # It is of no use any more, whatever it says to that.
            return
