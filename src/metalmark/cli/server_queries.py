"""``metalmark server version|spec|config view|config console|backup|stats``: what a running server says of itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from metalmark.cli.record_flags import only_given
from metalmark.cli.remote import remote_command
from metalmark.cli.view import View, document, plain, single

if TYPE_CHECKING:
    from metalmark.client import JsonValue, ServerSession


def add_server_queries(app: typer.Typer, config_app: typer.Typer) -> None:
    """Add the commands to the group ``server`` and its group ``config``."""
    remote_command(app, "version", needs_credential=False, answers="ServerVersionBody")(version)
    remote_command(app, "spec", needs_credential=False)(api_document)
    remote_command(app, "stats", answers="StatsBody")(stats)
    remote_command(app, "backup", answers="BackupBody")(backup)
    remote_command(config_app, "view", "get", answers="ConfigBody")(view_config)
    remote_command(config_app, "console", needs_credential=False, answers="ConsoleBody")(console)


async def version(server: ServerSession) -> View:
    """Tell the version of the server."""
    return single((await server.call("GET", "server", "version")).value)


async def api_document(server: ServerSession) -> View:
    """Print the description of the server's interface, an OpenAPI document."""
    return document((await server.call("GET", "server", "spec")).value)


async def stats(server: ServerSession) -> View:
    """Count what the server holds. Needs an administrator."""
    return flat((await server.call("GET", "server", "stats")).value)


async def view_config(server: ServerSession) -> View:
    """Show the configuration that the server runs with, without its secrets. Needs an administrator."""
    return flat((await server.call("GET", "server", "config")).value)


async def console(server: ServerSession) -> View:
    """Tell where the server's console is."""
    return single((await server.call("GET", "server", "config", "console")).value)


async def backup(
    server: ServerSession,
    *,
    compress: Annotated[bool, typer.Option("--compress", help="Compress the copy.")] = False,
    data_store: Annotated[
        Literal["aws_s3"] | None, typer.Option(help="Where the copy goes, beside the server's folder.")
    ] = None,
    remove: Annotated[
        bool, typer.Option("--remove", "--rm", help="Remove the local copy once it is in the data store.")
    ] = False,
) -> View:
    """Have the server copy its database while it runs. Needs an administrator."""
    body = only_given({"compress": compress or None, "data_store": data_store, "remove": remove or None})
    return single((await server.call("POST", "server", "backup", body=body)).value, notes=("the copy is made",))


def flat(value: JsonValue) -> View:
    """Return the view of a tree of values: a line for each leaf, named by its path."""
    return View(value=value, rows=tuple((path, plain(leaf)) for path, leaf in _leaves(value, "")))


def _leaves(value: JsonValue, path: str) -> Iterator[tuple[str, JsonValue]]:
    if isinstance(value, Mapping) and value:
        for name, member in value.items():
            yield from _leaves(member, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and any(isinstance(member, Mapping) for member in value):
        for index, member in enumerate(value):
            yield from _leaves(member, f"{path}[{index}]")
    else:
        yield path, value
