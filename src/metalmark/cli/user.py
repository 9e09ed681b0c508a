"""``metalmark user``: the people that a server knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from metalmark.cli.key import User, user_key_group
from metalmark.cli.record_flags import NewName, NewSlug, OnlyName, Search, Truth, changes, truth_of
from metalmark.cli.remote import Paging, group_of, remote_command
from metalmark.cli.view import View, columns, done, listing, single

if TYPE_CHECKING:
    from metalmark.client import ServerSession

app = group_of("Look after users and their keys.")
app.add_typer(user_key_group(), name="key")

_LIST = columns("slug", "name", "email", "admin", "locked", "created", "uuid")


@remote_command(app, "list", "ls", sort=("name",), answers="UserBody[]")
async def list_users(server: ServerSession, *, name: OnlyName = None, search: Search = None, paging: Paging) -> View:
    """List all users. Needs an administrator."""
    return listing(await paging.fetch(server, "users", query={"name": name, "search": search}), _LIST)


@remote_command(app, "view", "get", answers="UserBody")
async def view_user(server: ServerSession, *, user: User) -> View:
    """Show a user."""
    return single((await server.call("GET", "users", user)).value)


@remote_command(app, "update", "edit", answers="UserBody")
async def update_user(
    server: ServerSession,
    *,
    user: User,
    name: NewName = None,
    slug: NewSlug = None,
    email: Annotated[str | None, typer.Option(metavar="ADDRESS", help="A new address of e-mail.")] = None,
    admin: Annotated[Truth | None, typer.Option(help="Whether the user is an administrator of the server.")] = None,
    locked: Annotated[Truth | None, typer.Option(help="Whether the user is kept out.")] = None,
) -> View:
    """Change a user; --admin and --locked need an administrator."""
    body = changes({"name": name, "slug": slug, "email": email, "admin": truth_of(admin), "locked": truth_of(locked)})
    return single((await server.call("PATCH", "users", user, body=body)).value)


@remote_command(app, "sign-out")
async def sign_out(server: ServerSession, *, user: User) -> View:
    """End all sign-ins of a user at once. Keys and tokens stay."""
    await server.call("DELETE", "users", user, "sessions")
    return done("all sign-ins are over")
