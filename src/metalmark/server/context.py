"""What every request and every background task of one server process works with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import anyio
from fastapi import Depends
from starlette.requests import HTTPConnection

from metalmark.server.config import ServerConfig
from metalmark.system import Clock

if TYPE_CHECKING:
    from metalmark.server.channels import Channels
    from metalmark.server.dispatcher import Dispatcher
    from metalmark.server.mail import Mailer
    from metalmark.server.metrics import Metrics
    from metalmark.server.rate_limits import RateLimits
    from metalmark.server.readiness import Readiness
    from metalmark.server.reading_queue import ReadingQueue
    from metalmark.server.signer import Signer
    from metalmark.store import Blobs, Store


@dataclass(frozen=True, kw_only=True)
class ServerContext:
    """The parts of one server process, made once at its start and closed at its end."""

    config: ServerConfig
    clock: Clock
    store: Store
    """Tables: accounts, projects, runners, specs, jobs, reports."""
    blobs: Blobs
    """Large content by key: job output, later images."""
    dispatcher: Dispatcher
    """Gives pending jobs to waiting runners."""
    channels: Channels
    """The open channels of runners to this process."""
    signer: Signer
    """Makes and checks the server's own tokens."""
    mailer: Mailer
    """Sends confirmations and invitations, or logs them."""
    limits: RateLimits
    """Counts what callers do, and refuses what is too much."""
    metrics: Metrics
    """Counts what happens, for those who watch."""
    readiness: Readiness
    """Knows whether the storage answers."""
    folder: Path
    """The server's own folder: backups, and the database and storage that were not placed elsewhere."""
    readings: ReadingQueue
    """Completed jobs whose results are read beside everything else."""
    stopping: anyio.Event
    """Set when this process is on its way out: no new work, and channels close so that runners reconnect."""

    @property
    def database(self) -> str:
        """URL of the database. It may hold a password: not for logs."""
        return self.config.database or default_database(self.folder)

    @property
    def storage(self) -> str:
        """The folder or URL of the blobs."""
        return self.config.storage or str(default_storage(self.folder))


def default_database(folder: Path) -> str:
    """Return the URL of the database that a server keeps in a folder of its own."""
    return f"sqlite:///{folder / 'metalmark.db'}"


def default_storage(folder: Path) -> Path:
    """Return the folder of the blobs that a server keeps in a folder of its own."""
    return folder / "blobs"


def server_context(connection: HTTPConnection) -> ServerContext:
    """Return the context of the application that a request or channel came in through."""
    return cast("ServerContext", connection.app.state.context)


CurrentContext = Annotated[ServerContext, Depends(server_context)]
"""A route's parameter of this type is the server's context."""
