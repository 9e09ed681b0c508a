"""``metalmark member``: the people of an organization and their roles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from metalmark.cli.key import User
from metalmark.cli.organization import Organization
from metalmark.cli.record_flags import OnlyName, Search, changes, only_given
from metalmark.cli.remote import Paging, group_of, remote_command
from metalmark.cli.view import View, columns, done, listing, single

if TYPE_CHECKING:
    from metalmark.client import ServerSession

app = group_of("Invite people into an organization and give them roles.")

_LIST = columns("slug", "name", "email", "role", "created", "uuid")
_ROLES = Literal["leader", "member"]
_WHAT = "leader may do everything, member sees."


@remote_command(app, "list", "ls", sort=("name",), answers="MemberBody[]")
async def list_members(
    server: ServerSession,
    *,
    organization: Organization,
    name: OnlyName = None,
    search: Search = None,
    paging: Paging,
) -> View:
    """List the members of an organization."""
    query = {"name": name, "search": search}
    return listing(await paging.fetch(server, "organizations", organization, "members", query=query), _LIST)


@remote_command(app, "invite", answers="MailedBody")
async def invite(
    server: ServerSession,
    *,
    organization: Organization,
    email: Annotated[str, typer.Option(metavar="ADDRESS", help="Who is invited.", show_default=False)],
    role: Annotated[_ROLES, typer.Option(help=_WHAT)] = "leader",
    name: Annotated[str | None, typer.Option(metavar="NAME", help="How to address them.")] = None,
) -> View:
    """Invite somebody by e-mail."""
    body = only_given({"email": email, "role": role, "name": name})
    answer = await server.call("POST", "organizations", organization, "members", body=body)
    return single(answer.value, notes=("an invitation is on its way",))


@remote_command(app, "view", "get", answers="MemberBody")
async def view_member(server: ServerSession, *, organization: Organization, user: User) -> View:
    """Show a member."""
    return single((await server.call("GET", "organizations", organization, "members", user)).value)


@remote_command(app, "update", "edit", answers="MemberBody")
async def update_member(
    server: ServerSession,
    *,
    organization: Organization,
    user: User,
    role: Annotated[_ROLES | None, typer.Option(help=_WHAT)] = None,
) -> View:
    """Change the role of a member."""
    body = changes({"role": role})
    return single((await server.call("PATCH", "organizations", organization, "members", user, body=body)).value)


@remote_command(app, "remove", "rm")
async def remove_member(server: ServerSession, *, organization: Organization, user: User) -> View:
    """Remove somebody from an organization."""
    await server.call("DELETE", "organizations", organization, "members", user)
    return done(f"{user} is no member of {organization} any more")
