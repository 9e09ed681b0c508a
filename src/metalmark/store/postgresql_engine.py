"""PostgreSQL: a pool of connections, a transaction for each write, and one more connection that listens for notices."""

from __future__ import annotations

import random
import select
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias, TypeVar

import anyio
import psycopg
from sqlalchemy import URL, bindparam, event, text
from sqlalchemy.exc import DBAPIError, InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from metalmark.model import StoreAway, StoreBusy
from metalmark.store.database_errors import may_be_of_a_race, wants_another_try, was_cut_off
from metalmark.store.notices import MISSED, Notice, Notices, take_announced
from metalmark.store.pace import Isolation, Pace
from metalmark.store.turns import Turns
from metalmark.system import sleep_s

T = TypeVar("T")
_Listener: TypeAlias = psycopg.AsyncConnection[tuple[Any, ...]]
_CHANNEL = "metalmark"
_ALIVE_CHECK_S = 20.0
_RETRY_S = 0.01
_RETRY_MOST_S = 0.5
_RECONNECT_S = 0.5
_NOTIFY = text("SELECT pg_notify(:channel, payload) FROM unnest(CAST(:payloads AS text[])) AS payload").bindparams(
    bindparam("channel", _CHANNEL)
)


class PostgresqlEngine:
    """One PostgreSQL database, as one process uses it."""

    name = "postgresql"

    def __init__(self, url: URL, pace: Pace, notices: Notices) -> None:
        self._pace = pace
        self._notices = notices
        self._turns = Turns(pace.connections, pace.lock_s)
        self._single_file = anyio.Lock()
        settings = {
            "statement_timeout": round(pace.write_s * 1000),
            "lock_timeout": round(pace.lock_s * 1000),
            "idle_in_transaction_session_timeout": round(pace.read_s * 1000),
        }
        self._arguments: dict[str, Any] = {
            "connect_timeout": max(1, round(pace.connect_s)),
            "application_name": "metalmark",
            "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
            "keepalives_idle": 15,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": round(pace.write_s * 1000),
        }
        self._url = url.set(drivername="postgresql+psycopg")
        self._engine = create_async_engine(
            self._url,
            # Errors are logged, and parameters hold addresses, digests of keys and secrets.
            hide_parameters=True,
            pool_size=pace.connections,
            max_overflow=0,
            pool_timeout=pace.lock_s,
            pool_use_lifo=True,
            connect_args=self._arguments,
        )

        event.listen(self._engine.sync_engine, "checkout", _refuse_when_cut)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Have notices of all processes delivered.

        Raises:
            StoreAway: The database cannot be reached.
        """
        # Before the task group, out of which its error would come wrapped.
        connection = await self._connect_listener()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._listen_always, connection)
                yield
                tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await self._engine.dispose()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Give a connection that sees one state of the database and cannot change it."""
        async with self._begun("REPEATABLE READ", readonly=True) as connection:
            yield connection

    @asynccontextmanager
    async def _begun(self, isolation: str, *, readonly: bool) -> AsyncIterator[AsyncConnection]:
        """Give a connection in a transaction that is rolled back at the end, unless it was committed."""
        async with self._turns.turn():
            connection = await self._start(isolation, readonly=readonly)
            try:
                yield connection
            finally:
                with anyio.CancelScope(shield=True), anyio.move_on_after(self._pace.connect_s):
                    await connection.close()

    async def _start(self, isolation: str, *, readonly: bool) -> AsyncConnection:
        connection = self._engine.connect()
        # One that cannot be made leaves nothing to close.
        await connection.start()
        try:
            await connection.execution_options(isolation_level=isolation, postgresql_readonly=readonly)
            await connection.begin()
        except BaseException:
            await connection.close()
            raise
        return connection

    async def write(self, work: Callable[[AsyncConnection], Awaitable[T]], isolation: Isolation) -> T:
        """Carry out a work in a transaction of its own, again when others got in its way."""
        looked_again = isolation is not Isolation.SERIALIZABLE
        with anyio.fail_after(self._pace.write_s):
            for tried in range(1, self._pace.tries + 1):
                committing = False
                try:
                    async with self._turn(tried, isolation), self._begun(isolation.value, readonly=False) as connection:
                        take_announced(connection)
                        result = await work(connection)
                        await _notify(connection)
                        committing = True
                        await connection.commit()
                        return result
                except DBAPIError as error:
                    # A connection that broke during the commit leaves open whether it took place: no second try.
                    again = wants_another_try(error) or (was_cut_off(error) and not committing)
                    if not again and not looked_again and may_be_of_a_race(error):
                        # A real conflict is there again; after a race the work finds what it had not seen.
                        looked_again = again = True
                    if not again or tried == self._pace.tries:
                        raise
                await self._wait_for_others(tried)
        raise StoreBusy("other writes kept getting in the way of this one")

    @asynccontextmanager
    async def _turn(self, tried: int, isolation: Isolation) -> AsyncIterator[None]:
        if tried == 1 or isolation is not Isolation.SERIALIZABLE:
            yield
            return
        # Many that decide by the same rows would keep failing each other: those of this process go in single file.
        async with self._single_file:
            yield

    async def _wait_for_others(self, tried: int) -> None:
        most_s = min(_RETRY_MOST_S, _RETRY_S * 2**tried)
        await sleep_s(random.uniform(0, most_s))  # noqa: S311 - keeps writes from meeting again, hides nothing

    async def _listen_always(self, first: _Listener) -> None:
        """Deliver notices of all processes, over one connection after the other."""
        connection: _Listener | None = first
        while True:
            try:
                if connection is None:
                    connection = await self._connect_listener()
                    self._notices.deliver([MISSED])
                await self._listen(connection)
            except (psycopg.Error, OSError, TimeoutError, StoreAway):
                pass
            finally:
                if connection is not None:
                    with anyio.CancelScope(shield=True), anyio.move_on_after(self._pace.connect_s):
                        await connection.close()
            connection = None
            await sleep_s(_RECONNECT_S)

    async def _connect_listener(self) -> _Listener:
        plain = self._url.set(drivername="postgresql").render_as_string(hide_password=False)
        arguments = {**self._arguments, "options": "-c tcp_keepalives_idle=15"}
        try:
            with anyio.fail_after(self._pace.connect_s):
                connection = await psycopg.AsyncConnection.connect(plain, autocommit=True, **arguments)
                await connection.execute(f"LISTEN {_CHANNEL}".encode())
                return connection
        except (psycopg.Error, OSError, TimeoutError) as error:
            # Only whoever opens the store is told this, so it may say where the database is.
            why = next(iter(str(error).splitlines()), "") or "no answer in time"
            raise StoreAway(f"the database {self._url.render_as_string()} cannot be reached", why=why) from error

    async def _listen(self, connection: _Listener) -> None:
        while True:
            async for notify in connection.notifies(timeout=_ALIVE_CHECK_S):
                notice = Notice.parse(notify.payload)
                if notice is not None:
                    self._notices.deliver([notice])
            with anyio.fail_after(self._pace.connect_s):
                await connection.execute("SELECT 1")


def _refuse_when_cut(connection: Any, _record: object, _proxy: object) -> None:  # noqa: ANN401 - the driver's
    """Keep a connection from being used that the server has ended since it was last used.

    There is nothing to read on an idle connection but the news that it is over. This asks the system only; asking the
    server would make every transaction a round trip longer.
    """
    poll = select.poll()
    poll.register(connection.driver_connection.fileno(), select.POLLIN | select.POLLRDHUP)
    if poll.poll(0):
        raise InvalidatePoolError


async def _notify(connection: AsyncConnection) -> None:
    notices = take_announced(connection)
    if notices:
        await connection.execute(_NOTIFY, {"payloads": [notice.text() for notice in notices]})
