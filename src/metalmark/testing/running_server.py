"""A server in a thread of this process, on a free port: real sockets, and its parts at a test's hand."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import anyio
import httpx
import structlog
from anyio.from_thread import BlockingPortal

from metalmark.server import ServerConfig, ServerContext, Started, serve
from metalmark.system import Clock
from metalmark.testing.own_logs import log_beside_tests

T = TypeVar("T")

_START_S = 60.0
_UNLIMITED = {
    "address_requests": 0,
    "user_requests": 0,
    "registry_requests": 0,
    "sign_in_attempts": 0,
    "mails": 0,
    "runs": 0,
    "runner_connections": 0,
}
_started: dict[Path, str] = {}


@dataclass(frozen=True, kw_only=True)
class RunningServer:
    """A server that serves."""

    url: str
    """``http://127.0.0.1:PORT``, without a slash at its end."""
    admin_key: str
    """A key of the administrator whom its first start made."""
    context: ServerContext
    """Its parts. They live in another thread's event loop: use them through `call`."""
    portal: BlockingPortal

    def call(self, function: Callable[[ServerContext], Awaitable[T]]) -> T:
        """Run an asynchronous function with the server's parts, on the server's own event loop."""
        return self.portal.call(function, self.context)

    def client(self, key: str | None = "") -> httpx.Client:
        """Return a client of the server.

        Args:
            key: A credential; empty for the administrator's, None for none.
        """
        credential = self.admin_key if key == "" else key
        headers = {} if credential is None else {"Authorization": f"Bearer {credential}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False)


def configuration(
    *, database: str | None = None, storage: str | None = None, settings: Mapping[str, Mapping[str, Any]] | None = None
) -> ServerConfig:
    """Return the configuration of a server under test: a free port, no rate limits, and what is given."""
    given = settings or {}
    document: dict[str, Any] = {name: dict(section) for name, section in given.items()}
    document["server"] = {"bind": "127.0.0.1:0", "stop_timeout_s": 2, **given.get("server", {})}
    document["limits"] = {**_UNLIMITED, **given.get("limits", {})}
    return ServerConfig.model_validate({"database": database, "storage": storage, **document})


@contextmanager
def running_server(
    folder: Path,
    *,
    database: str | None = None,
    storage: str | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    clock: Clock | None = None,
    has_users: bool = False,
) -> Iterator[RunningServer]:
    """Run a server until the context ends.

    Args:
        folder: Its folder, made when missing. A server that is started again in it knows its administrator's key.
        database: URL of its database; an SQLite file in the folder by default.
        storage: Where its blobs are; in the folder by default.
        settings: Keys of its configuration by section (``{"auth": {"signup": "open"}}``).
        clock: Its clock; the machine's by default.
        has_users: Whether its database has users already, so that there will be no first administrator's key.

    Raises:
        MetalmarkError: It cannot start.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not structlog.is_configured():
        log_beside_tests()
    config = configuration(database=database, storage=storage, settings=settings)
    ready: Future[tuple[Started, BlockingPortal, anyio.Event]] = Future()

    async def run() -> None:
        stop = anyio.Event()
        async with BlockingPortal() as portal:
            await serve(
                config, folder, stop=stop, ready=lambda started: ready.set_result((started, portal, stop)), clock=clock
            )

    def thread() -> None:
        try:
            anyio.run(run)
        except BaseException as error:
            if ready.done():
                raise
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            ready.set_exception(error)

    runner = threading.Thread(target=thread, name="server under test", daemon=True)
    runner.start()
    started, portal, stop = ready.result(_START_S)
    if started.first_key is not None:
        _started[folder] = started.first_key.text
    port = started.url.rstrip("/").rpartition(":")[2]
    try:
        yield RunningServer(
            url=f"http://127.0.0.1:{port}",
            admin_key="" if has_users else _started[folder],
            context=started.context,
            portal=portal,
        )
    finally:
        portal.start_task_soon(_set, stop)
        runner.join(_START_S)


async def _set(event: anyio.Event) -> None:
    event.set()
