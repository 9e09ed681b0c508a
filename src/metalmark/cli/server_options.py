"""The flags that say which server's configuration a command works with, and what comes of them."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from metalmark.cli.async_command import run_async
from metalmark.model import StableError, ToolMissing
from metalmark.system import ensure_private, folders, try_locked

if TYPE_CHECKING:
    from metalmark.server import ServerConfig
    from metalmark.store import Store

T = TypeVar("T")

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="The configuration, TOML. Without it, `server.toml` of Metalmark's configuration folder if it is there.",
    ),
]
Bind = Annotated[str | None, typer.Option(metavar="ADDRESS:PORT", help="Where to listen, in place of `server.bind`.")]
Database = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="`sqlite:///FILE` or `postgresql://USER@HOST/NAME`, in place of `database`. Passwords belong into a file.",
    ),
]
Storage = Annotated[
    str | None, typer.Option(metavar="URL", help="A folder or `s3://BUCKET/PREFIX`, in place of `storage`.")
]


@dataclass(frozen=True, kw_only=True)
class Place:
    """A server of this machine."""

    config: ServerConfig
    folder: Path
    """Its own folder: the database, the storage and backups where the configuration places them nowhere else."""

    @property
    def database(self) -> str:
        """URL of its database. It may hold a password."""
        from metalmark.server import default_database

        return self.config.database or default_database(self.folder)

    @property
    def storage(self) -> str:
        """Folder or URL of its large content."""
        from metalmark.server import default_storage

        return self.config.storage or str(default_storage(self.folder))


def need_server_packages() -> None:
    """Make sure that what a server needs is installed.

    Raises:
        ToolMissing: It is not.
    """
    try:
        for name in ("fastapi", "uvicorn", "sqlalchemy", "alembic"):
            importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ToolMissing(
            f"the package {error.name} is not installed",
            why="running a server needs it",
            hint="pip install 'metalmark[server]'",
        ) from error


def read_place(config: Path | None, **flags: str | None) -> Place:
    """Return the server that flags, environment and file describe, with its folder made.

    Args:
        config: The file that was named, if one was.
        flags: Values of flags by key of the configuration, a dot in it as two underscores.

    Raises:
        ToolMissing: A server's packages are not installed.
        ConfigFaults: Something is wrong with the configuration.
        NoPermission: The folder cannot be made.
    """
    need_server_packages()
    from metalmark.server import read_config

    places = folders()
    usual = places.config / "server.toml"
    chosen = config or (usual if usual.exists() else None)
    by_key = {name.replace("__", "."): value for name, value in flags.items()}
    read = read_config(file=chosen, environment=os.environ, flags=by_key)
    folder = ensure_private(places.state) / "server"
    folder.mkdir(mode=0o700, exist_ok=True)
    return Place(config=read, folder=folder)


@contextlib.contextmanager
def alone(place: Place) -> Iterator[None]:
    """Hold a database that only one process may write to, for as long as the context lasts.

    Processes that share an SQLite file do not hear of each other's work; those that share a PostgreSQL database do.

    Raises:
        StableError: A server runs on it.
    """
    if not place.database.startswith("sqlite"):
        yield
        return
    with try_locked(place.folder / "server.lock") as mine:
        if not mine:
            raise StableError(
                f"a server runs in {place.folder} already",
                why="one server at a time works on an SQLite database",
                hint="stop it first, or use PostgreSQL for several",
            )
        yield


def with_store(config: Path | None, database: str | None, work: Callable[[Store], Awaitable[T]]) -> T:
    """Open the database of a server, do something with it, and close it.

    Raises:
        MetalmarkError: It cannot be opened, or the work has failed.
    """
    place = read_place(config, database=database)
    from metalmark.store import Store

    async def run() -> T:
        async with await Store.open(place.database) as store:
            return await work(store)

    return run_async(run)
