"""``metalmark organization``: who owns projects together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from metalmark.cli.record_flags import Hard, Name, NewName, NewSlug, OnlyName, Search, Slug, changes, only_given
from metalmark.cli.remote import Paging, group_of, remote_command
from metalmark.cli.view import View, columns, done, listing, single

if TYPE_CHECKING:
    from metalmark.client import ServerSession

app = group_of("Look after organizations, which own projects.")

PERMISSIONS = Literal[
    "view", "create", "edit", "delete", "manage", "view_role", "create_role", "edit_role", "delete_role"
]
"""What a role can permit."""
Permission = Annotated[PERMISSIONS, typer.Option("--perm", help="What is to be permitted.", show_default=False)]
Organization = Annotated[
    str, typer.Argument(metavar="ORGANIZATION", help="Slug or UUID of the organization.", show_default=False)
]

_LIST = columns("slug", "name", "created", "claimed", "uuid")


@remote_command(app, "list", "ls", sort=("name",), answers="OrganizationBody[]")
async def list_organizations(
    server: ServerSession, *, name: OnlyName = None, search: Search = None, paging: Paging
) -> View:
    """List your organizations; an administrator sees all."""
    return listing(await paging.fetch(server, "organizations", query={"name": name, "search": search}), _LIST)


@remote_command(app, "create", "add", answers="OrganizationBody")
async def create_organization(server: ServerSession, *, name: Name, slug: Slug = None) -> View:
    """Make an organization and become its leader."""
    return single((await server.call("POST", "organizations", body=only_given({"name": name, "slug": slug}))).value)


@remote_command(app, "view", "get", answers="OrganizationBody")
async def view_organization(server: ServerSession, *, organization: Organization) -> View:
    """Show an organization."""
    return single((await server.call("GET", "organizations", organization)).value)


@remote_command(app, "update", "edit", answers="OrganizationBody")
async def update_organization(
    server: ServerSession, *, organization: Organization, name: NewName = None, slug: NewSlug = None
) -> View:
    """Rename an organization."""
    body = changes({"name": name, "slug": slug})
    return single((await server.call("PATCH", "organizations", organization, body=body)).value)


@remote_command(app, "delete", "rm")
async def delete_organization(server: ServerSession, *, organization: Organization, hard: Hard = False) -> View:
    """Delete an organization with its projects."""
    await server.call("DELETE", "organizations", organization, query={"hard": hard or None})
    return done(f"organization {organization} is deleted")


@remote_command(app, "claim", answers="OrganizationBody")
async def claim_organization(server: ServerSession, *, organization: Organization) -> View:
    """Become leader of an organization that has no member."""
    return single((await server.call("POST", "organizations", organization, "claim", body={})).value)


@remote_command(app, "allowed", answers="AllowedBody")
async def allowed(server: ServerSession, *, organization: Organization, perm: Permission) -> View:
    """Tell whether you are permitted something in an organization."""
    return single((await server.call("GET", "organizations", organization, "allowed", perm)).value)
