"""``metalmark testbed``: where a project's benchmarks run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from metalmark.cli.key import Project
from metalmark.cli.record_flags import (
    UNSET,
    Archive,
    Name,
    NewName,
    NewSlug,
    OnlyArchived,
    OnlyName,
    Search,
    Slug,
    Unarchive,
    archived_of,
    changes,
    only_given,
)
from metalmark.cli.remote import Paging, group_of, remote_command
from metalmark.cli.view import View, column, columns, done, listing, single

if TYPE_CHECKING:
    from metalmark.client import ServerSession

app = group_of("Look after testbeds, where benchmarks run.")

Testbed = Annotated[str, typer.Argument(metavar="TESTBED", help="Slug or UUID of the testbed.", show_default=False)]

_SPEC = column("spec.slug", "spec")
_LIST = columns("slug", "name", _SPEC, "archived", "created", "uuid")
_FIELDS = columns("uuid", "project", "name", "slug", _SPEC, "created", "modified", "archived")


@remote_command(app, "list", "ls", needs_credential=False, sort=("name",), answers="TestbedBody[]")
async def list_testbeds(
    server: ServerSession,
    *,
    project: Project,
    name: OnlyName = None,
    search: Search = None,
    archived: OnlyArchived = False,
    paging: Paging,
) -> View:
    """List the testbeds of a project."""
    query = {"name": name, "search": search, "archived": archived or None}
    return listing(await paging.fetch(server, "projects", project, "testbeds", query=query), _LIST)


@remote_command(app, "create", "add", answers="TestbedBody")
async def create_testbed(
    server: ServerSession,
    *,
    project: Project,
    name: Name,
    slug: Slug = None,
    spec: Annotated[str | None, typer.Option(metavar="SPEC", help="Slug or UUID of the spec of its jobs.")] = None,
) -> View:
    """Make a testbed."""
    body = only_given({"name": name, "slug": slug, "spec": spec})
    return single((await server.call("POST", "projects", project, "testbeds", body=body)).value, _FIELDS)


@remote_command(app, "view", "get", needs_credential=False, answers="TestbedBody")
async def view_testbed(
    server: ServerSession,
    *,
    project: Project,
    testbed: Testbed,
    spec: Annotated[str | None, typer.Option(metavar="UUID", help="Show it with this spec instead of its own.")] = None,
) -> View:
    """Show a testbed."""
    answer = await server.call("GET", "projects", project, "testbeds", testbed, query={"spec": spec})
    return single(answer.value, _FIELDS)


@remote_command(app, "update", "edit", answers="TestbedBody")
async def update_testbed(
    server: ServerSession,
    *,
    project: Project,
    testbed: Testbed,
    name: NewName = None,
    slug: NewSlug = None,
    spec: Annotated[
        str | None, typer.Option(metavar="SPEC", help=f"Slug or UUID of the spec of its jobs; {UNSET} clears it.")
    ] = None,
    archive: Archive = False,
    unarchive: Unarchive = False,
) -> View:
    """Rename a testbed, give it a spec, or archive it."""
    body = changes({"name": name, "slug": slug, "archived": archived_of(archive, unarchive)}, clearable={"spec": spec})
    return single((await server.call("PATCH", "projects", project, "testbeds", testbed, body=body)).value, _FIELDS)


@remote_command(app, "delete", "rm")
async def delete_testbed(server: ServerSession, *, project: Project, testbed: Testbed) -> View:
    """Delete a testbed that no report refers to."""
    await server.call("DELETE", "projects", project, "testbeds", testbed)
    return done(f"testbed {testbed} is deleted")
