"""``metalmark token``: what programs signed in with before there were keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from metalmark.cli.key import KEY_COLUMNS, Ttl, User, seconds_of
from metalmark.cli.record_flags import Name, NewName, OnlyName, OnlyRevoked, Search, changes, only_given
from metalmark.cli.remote import Paging, group_of, remote_command
from metalmark.cli.view import View, done, listing, single

if TYPE_CHECKING:
    from metalmark.client import ServerSession

app = group_of("Tokens of a user, which keys have replaced.")

_Token = Annotated[str, typer.Argument(metavar="TOKEN", help="UUID of the token.", show_default=False)]


@remote_command(app, "list", "ls", sort=("name",), answers="TokenBody[]")
async def list_tokens(
    server: ServerSession,
    *,
    user: User,
    name: OnlyName = None,
    search: Search = None,
    revoked: OnlyRevoked = False,
    paging: Paging,
) -> View:
    """List the tokens of a user."""
    query = {"name": name, "search": search, "revoked": revoked or None}
    return listing(await paging.fetch(server, "users", user, "tokens", query=query), KEY_COLUMNS)


@remote_command(app, "create", "add", answers="TokenBody")
async def create_token(server: ServerSession, *, user: User, name: Name, ttl: Ttl = None) -> View:
    """Refused by every server: make a key with `metalmark key create`."""
    body = only_given({"name": name, "ttl": seconds_of(ttl)})
    return single((await server.call("POST", "users", user, "tokens", body=body)).value)


@remote_command(app, "view", "get", answers="TokenBody")
async def view_token(server: ServerSession, *, user: User, token_uuid: _Token) -> View:
    """Show a token."""
    return single((await server.call("GET", "users", user, "tokens", token_uuid)).value)


@remote_command(app, "update", "edit", answers="TokenBody")
async def update_token(server: ServerSession, *, user: User, token_uuid: _Token, name: NewName = None) -> View:
    """Rename a token."""
    body = changes({"name": name})
    return single((await server.call("PATCH", "users", user, "tokens", token_uuid, body=body)).value)


@remote_command(app, "revoke", "rm")
async def revoke_token(server: ServerSession, *, user: User, token_uuid: _Token) -> View:
    """Revoke a token for good."""
    await server.call("DELETE", "users", user, "tokens", token_uuid)
    return done(f"token {token_uuid} is revoked")
