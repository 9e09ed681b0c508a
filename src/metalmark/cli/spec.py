"""``metalmark spec``: the kinds of machine that jobs ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

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
    Truth,
    Unarchive,
    archived_of,
    changes,
    only_given,
    truth_of,
)
from metalmark.cli.remote import Paging, group_of, remote_command
from metalmark.cli.view import View, columns, done, listing, single
from metalmark.model import parse_bytes

if TYPE_CHECKING:
    from metalmark.client import ServerSession

app = group_of("Describe the machines that jobs ask for. Needs an administrator.")

SPEC_COLUMNS = columns("slug", "os", "architecture", "sandbox", "cpu", "memory", "disk", "network", "fallback", "uuid")
"""Columns of a list of specs."""
SPEC_FIELDS = columns(
    "uuid", "name", "slug", "os", "architecture", "sandbox", "cpu", "memory", "disk", "network", "fallback",
    "anonymous", "created", "modified", "archived",
)  # fmt: skip
"""Lines of one spec."""

Spec = Annotated[str, typer.Argument(metavar="SPEC", help="Slug or UUID of the spec.", show_default=False)]
_Size = {"metavar": "SIZE", "show_default": False}


@remote_command(app, "list", "ls", sort=("name", "created"), answers="SpecBody[]")
async def list_specs(
    server: ServerSession,
    *,
    name: OnlyName = None,
    search: Search = None,
    archived: Also = False,
    paging: Paging,
) -> View:
    """List the specs."""
    query = {"name": name, "search": search, "archived": archived or None}
    return listing(await paging.fetch(server, "specs", query=query), SPEC_COLUMNS)


@remote_command(app, "create", "add", answers="SpecBody")
async def create_spec(
    server: ServerSession,
    *,
    name: Name,
    slug: Slug = None,
    os: Annotated[Literal["linux", "macos", "windows"], typer.Option(help="Operating system.", show_default=False)],
    architecture: Annotated[Literal["x86_64", "aarch64"], typer.Option(help="Of the CPU.", show_default=False)],
    sandbox: Annotated[
        Literal["firecracker", "qemu", "container", "microvm"] | None,
        typer.Option(help="What jobs run in; microvm is firecracker or qemu. Without it: none.", show_default=False),
    ] = None,
    cpu: Annotated[int, typer.Option(metavar="N", min=1, max=2**31 - 1, help="CPUs of a job.", show_default=False)],
    memory: Annotated[str, typer.Option(**_Size, help="Memory of a job: bytes, or with a unit as in 4GiB.")],
    disk: Annotated[str, typer.Option(**_Size, help="Disk of a job: bytes, or with a unit.")],
    network: Annotated[bool, typer.Option("--network", help="Jobs have a network.")] = False,
    fallback: Annotated[
        bool, typer.Option("--fallback", help="For jobs that name no spec; taken from the one that has this now.")
    ] = False,
    anonymous: Annotated[
        bool, typer.Option("--anonymous", help="Also for jobs of nobody, where the server takes such.")
    ] = False,
) -> View:
    """Add a spec. All but its name, slug, fallback and archiving stays as it is made."""
    body = only_given(
        {
            "name": name,
            "slug": slug,
            "os": os,
            "architecture": architecture,
            "sandbox": sandbox,
            "cpu": cpu,
            "memory": parse_bytes(memory, field="--memory"),
            "disk": parse_bytes(disk, field="--disk"),
            "network": network,
            "fallback": fallback,
            "anonymous": anonymous or None,
        }
    )
    return single((await server.call("POST", "specs", body=body)).value, SPEC_FIELDS)


@remote_command(app, "view", "get", answers="SpecBody")
async def view_spec(server: ServerSession, *, spec: Spec) -> View:
    """Show a spec, also an archived one."""
    return single((await server.call("GET", "specs", spec)).value, SPEC_FIELDS)


@remote_command(app, "update", "edit", answers="SpecBody")
async def update_spec(
    server: ServerSession,
    *,
    spec: Spec,
    name: NewName = None,
    slug: NewSlug = None,
    fallback: Annotated[Truth | None, typer.Option(help="Whether jobs that name no spec get this one.")] = None,
    anonymous: Annotated[Truth | None, typer.Option(help="Whether jobs of nobody may have it.")] = None,
    archive: Archive = False,
    unarchive: Unarchive = False,
) -> View:
    """Rename a spec, make it the fallback, or archive it: no new job can name an archived one."""
    body = changes(
        {
            "name": name,
            "slug": slug,
            "fallback": truth_of(fallback),
            "anonymous": truth_of(anonymous),
            "archived": archived_of(archive, unarchive),
        }
    )
    return single((await server.call("PATCH", "specs", spec, body=body)).value, SPEC_FIELDS)


@remote_command(app, "delete", "rm")
async def delete_spec(server: ServerSession, *, spec: Spec) -> View:
    """Delete a spec that no runner and no job refers to."""
    await server.call("DELETE", "specs", spec)
    return done(f"spec {spec} is deleted")
