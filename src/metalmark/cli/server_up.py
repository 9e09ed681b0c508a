"""``metalmark server up`` and ``metalmark server config check``."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from metalmark.cli.async_command import run_async
from metalmark.cli.errors import EXIT_FAILURE
from metalmark.cli.library_logs import forward_library_logs
from metalmark.cli.logs import Verbosity, set_up_logging, shown
from metalmark.cli.server_options import (
    Bind,
    ConfigFile,
    Database,
    Place,
    Storage,
    alone,
    need_server_packages,
    read_place,
)
from metalmark.cli.standard_error import unblocked_stderr
from metalmark.cli.stop_signals import heeded

if TYPE_CHECKING:
    from metalmark.server import Started


def add_server_running(app: typer.Typer, config_app: typer.Typer) -> None:
    """Add the commands to the group ``server`` and its group ``config``."""
    app.command("up")(up)
    config_app.command("check")(check)


def up(config: ConfigFile = None, bind: Bind = None, database: Database = None, storage: Storage = None) -> None:
    """Run a server, until it is told to stop.

    The first start makes an administrator and a key to sign in with. SIGTERM and SIGINT end it: runners are told to
    come back, requests under way are finished; a second signal does not wait for them.
    """
    # Blobs and whatever else a server writes are its own, wherever the storage is.
    os.umask(0o077)
    # What happens on a server belongs into its log, and so does mail where no mail server is configured.
    set_up_logging(min(shown(), Verbosity.INFO) if shown() is not Verbosity.ERROR else Verbosity.ERROR)
    forward_library_logs()
    place = read_place(config, server__bind=bind, database=database, storage=storage)
    with alone(place), unblocked_stderr():
        run_async(lambda: _serve(place))


async def _serve(place: Place) -> None:
    from metalmark.server import serve

    stop = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_listen, stop, tasks.cancel_scope)
        await serve(place.config, place.folder, stop=stop, ready=lambda started: _tell(started, place.folder))
        tasks.cancel_scope.cancel()


async def _listen(stop: anyio.Event, scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(*heeded()) as signals:
        async for _ in signals:
            if stop.is_set():
                scope.cancel()
            stop.set()


def _tell(started: Started, folder: Path) -> None:
    from metalmark.server import KEY_FILE

    lines = [f"serving {started.url}"]
    if started.first_key is not None:
        path = folder / KEY_FILE
        lines += [
            "",
            "This is the server's first start. It has made an administrator with a key, which is kept in",
            f"  {path}",
        ]
        if sys.stderr.isatty():
            # A log would keep it for longer than anyone wants; a terminal is the administrator's own.
            lines += ["and reads", f"  {started.first_key.text}"]
        lines += [
            "Sign in with it:",
            f"  export METALMARK_HOST={started.url} METALMARK_API_KEY=$(cat {shlex.quote(str(path))})",
            "  metalmark user list",
            "  metalmark server admin create-user --name NAME --email ADDRESS",
            "",
        ]
    sys.stderr.write("\n".join(lines) + "\n")
    sys.stderr.flush()


def check(
    config: ConfigFile = None,
    bind: Bind = None,
    database: Database = None,
    storage: Storage = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print errors, or the configuration in force, as JSON.")
    ] = False,
) -> None:
    """Read a server's configuration without starting anything, and show every error in it."""
    need_server_packages()
    from metalmark.server import ConfigFaults

    try:
        place = read_place(config, server__bind=bind, database=database, storage=storage)
    except ConfigFaults as error:
        if not as_json:
            # Its hint names the command that just ran.
            error.hint = ""
            raise
        faults = [{"where": fault.where, "why": fault.why} for fault in error.faults]
        typer.echo(json.dumps({"errors": faults}, indent=2))
        raise typer.Exit(EXIT_FAILURE) from None
    if as_json:
        typer.echo(json.dumps({"errors": [], "configuration": _shown_configuration(place)}, indent=2))
    else:
        typer.echo("the configuration has no errors")


def _shown_configuration(place: Place) -> dict[str, object]:
    from metalmark.server import without_password

    document = place.config.model_dump(mode="json")
    document["database"] = without_password(place.database)
    document["storage"] = without_password(place.config.storage or os.fspath(place.folder / "blobs"))
    return document
