"""``metalmark project``: what is measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from metalmark.cli.key import Project, project_key_group
from metalmark.cli.organization import Organization, Permission
from metalmark.cli.record_flags import (
    UNSET,
    Hard,
    Name,
    NewName,
    NewSlug,
    OnlyName,
    Search,
    Slug,
    changes,
    only_given,
)
from metalmark.cli.remote import Paging, group_of, remote_command
from metalmark.cli.view import View, columns, done, listing, single

if TYPE_CHECKING:
    from metalmark.client import ServerSession

app = group_of("Look after projects and their keys.")
app.add_typer(project_key_group(), name="key")

_LIST = columns("slug", "name", "visibility", "created", "url", "uuid")
_VISIBILITY = Literal["public", "private"]


@remote_command(app, "list", "ls", needs_credential=False, sort=("name",), answers="ProjectBody[]")
async def list_projects(
    server: ServerSession,
    *,
    organization: Annotated[
        str | None, typer.Argument(metavar="[ORGANIZATION]", help="Only those of this one.", show_default=False)
    ] = None,
    name: OnlyName = None,
    search: Search = None,
    paging: Paging,
) -> View:
    """List the projects that you may see."""
    path = ("projects",) if organization is None else ("organizations", organization, "projects")
    return listing(await paging.fetch(server, *path, query={"name": name, "search": search}), _LIST)


@remote_command(app, "create", "add", answers="ProjectBody")
async def create_project(
    server: ServerSession,
    *,
    organization: Organization,
    name: Name,
    slug: Slug = None,
    url: Annotated[str | None, typer.Option(metavar="URL", help="Where the project lives.")] = None,
    visibility: Annotated[_VISIBILITY, typer.Option(help="private is seen by its people alone.")] = "public",
) -> View:
    """Make a project."""
    body = only_given({"name": name, "slug": slug, "url": url, "visibility": visibility})
    return single((await server.call("POST", "organizations", organization, "projects", body=body)).value)


@remote_command(app, "view", needs_credential=False, answers="ProjectBody")
async def view_project(server: ServerSession, *, project: Project) -> View:
    """Show a project."""
    return single((await server.call("GET", "projects", project)).value)


@remote_command(app, "update", "edit", answers="ProjectBody")
async def update_project(
    server: ServerSession,
    *,
    project: Project,
    name: NewName = None,
    slug: NewSlug = None,
    url: Annotated[str | None, typer.Option(metavar="URL", help=f"Where the project lives; {UNSET} clears it.")] = None,
    visibility: Annotated[_VISIBILITY | None, typer.Option(help="private is seen by its people alone.")] = None,
) -> View:
    """Rename a project, or change who sees it."""
    body = changes({"name": name, "slug": slug, "visibility": visibility}, clearable={"url": url})
    return single((await server.call("PATCH", "projects", project, body=body)).value)


@remote_command(app, "delete", "rm")
async def delete_project(server: ServerSession, *, project: Project, hard: Hard = False) -> View:
    """Delete a project. Its name is free again; what was measured stays in the database unless --hard is given."""
    await server.call("DELETE", "projects", project, query={"hard": hard or None})
    return done(f"project {project} is deleted")


@remote_command(app, "allowed", answers="AllowedBody")
async def allowed(server: ServerSession, *, project: Project, perm: Permission) -> View:
    """Tell whether you are permitted something in a project."""
    return single((await server.call("GET", "projects", project, "allowed", perm)).value)
