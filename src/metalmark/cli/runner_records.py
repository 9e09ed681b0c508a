"""``metalmark runner create|list|view|update|key`` and ``runner spec``: the runners that a server knows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metalmark.cli.record_flags import (
    Also,
    Archive,
    Name,
    NewName,
    NewSlug,
    OnlyName,
    Search,
    Slug,
    Unarchive,
    archived_of,
    changes,
    only_given,
)
from metalmark.cli.remote import Paging, group_of, remote_command
from metalmark.cli.secret_file import SecretFile
from metalmark.cli.spec import SPEC_COLUMNS, SPEC_FIELDS
from metalmark.cli.view import View, column, columns, count, done, listing, single

if TYPE_CHECKING:
    from metalmark.client import ServerSession

Runner = Annotated[str, typer.Argument(metavar="RUNNER", help="Slug or UUID of the runner.", show_default=False)]
SaveKey = Annotated[
    Path | None,
    typer.Option("--save-key", metavar="FILE", help="Put the key into a new file that only you can read."),
]

_LIST = columns("slug", "name", column("specs", show=count), "last_heartbeat", "archived", "uuid")

_PROOF = columns(*(f"proof.{name}" for name in (
    "proved", "version", "protocol", "os", "architecture", "sandboxes", "cpu", "memory", "disk", "network",
)))  # fmt: skip

spec_app = group_of("Which specs a runner takes jobs of.")


def add_runner_records(app: typer.Typer) -> None:
    """Add the commands to the group ``runner``."""
    remote_command(app, "list", "ls", sort=("name", "created"), answers="RunnerBody[]")(list_runners)
    remote_command(app, "create", "add", answers="RunnerKeyBody")(create_runner)
    remote_command(app, "view", "get", answers="RunnerBody")(view_runner)
    remote_command(app, "update", "edit", answers="RunnerBody")(update_runner)
    remote_command(app, "key", answers="RunnerKeyBody")(rotate_key)
    app.add_typer(spec_app, name="spec")


async def list_runners(
    server: ServerSession,
    *,
    name: OnlyName = None,
    search: Search = None,
    archived: Also = False,
    paging: Paging,
) -> View:
    """List the runners that the server knows. Needs an administrator."""
    query = {"name": name, "search": search, "archived": archived or None}
    return listing(await paging.fetch(server, "runners", query=query), _LIST)


async def create_runner(server: ServerSession, *, name: Name, slug: Slug = None, save_key: SaveKey = None) -> View:
    """Add a runner and show its key, this once. Needs an administrator.

    The program on the machine connects with this key. What it may take is said with `metalmark runner spec add`.
    """
    with SecretFile(save_key) as file:
        answer = await server.call("POST", "runners", body=only_given({"name": name, "slug": slug}))
        return file.keep(answer.value)


async def view_runner(server: ServerSession, *, runner: Runner) -> View:
    """Show a runner, also an archived one, and what it proved; --json has the facts of its host too."""
    value = (await server.call("GET", "runners", runner)).value
    if not isinstance(value, Mapping):
        return single(value)
    fields = [column(name) for name in value if name != "proof"]
    return single(value, (*fields, *_PROOF) if isinstance(value.get("proof"), Mapping) else fields)


async def update_runner(
    server: ServerSession,
    *,
    runner: Runner,
    name: NewName = None,
    slug: NewSlug = None,
    archive: Archive = False,
    unarchive: Unarchive = False,
) -> View:
    """Rename a runner, or archive it: an archived one is not listed and cannot connect."""
    body = changes({"name": name, "slug": slug, "archived": archived_of(archive, unarchive)})
    return single((await server.call("PATCH", "runners", runner, body=body)).value)


async def rotate_key(server: ServerSession, *, runner: Runner, save_key: SaveKey = None) -> View:
    """Make a new key for a runner. The old one opens no new connection from now on."""
    with SecretFile(save_key) as file:
        return file.keep((await server.call("POST", "runners", runner, "key")).value)


@remote_command(spec_app, "list", "ls", answers="SpecBody[]")
async def list_specs(server: ServerSession, *, runner: Runner) -> View:
    """List the specs of a runner, archived ones too."""
    answer = await server.call("GET", "runners", runner, "specs")
    # The server does not page this list, and counts it as one thing.
    return listing(answer, SPEC_COLUMNS)


@remote_command(spec_app, "add", "create", answers="SpecBody")
async def add_spec(
    server: ServerSession,
    *,
    runner: Runner,
    spec: Annotated[str, typer.Option(metavar="SPEC", help="Slug or UUID of the spec.", show_default=False)],
) -> View:
    """Let a runner take jobs of a spec."""
    answer = await server.call("POST", "runners", runner, "specs", body={"spec": spec})
    return single(answer.value, SPEC_FIELDS)


@remote_command(spec_app, "remove", "rm")
async def remove_spec(
    server: ServerSession,
    *,
    runner: Runner,
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="Slug or UUID of the spec.", show_default=False)],
) -> View:
    """Let a runner take no more jobs of a spec."""
    await server.call("DELETE", "runners", runner, "specs", spec)
    return done(f"runner {runner} takes no more jobs of spec {spec}")
