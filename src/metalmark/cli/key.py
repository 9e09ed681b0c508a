"""``metalmark key``, ``user key`` and ``project key``: the secrets that programs sign in with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metalmark.cli.record_flags import Name, NewName, OnlyName, OnlyRevoked, Search, changes, only_given
from metalmark.cli.remote import Paging, group_of, remote_command
from metalmark.cli.secret_file import SecretFile
from metalmark.cli.view import View, columns, done, listing, single
from metalmark.model import InputError, parse_seconds

if TYPE_CHECKING:
    from metalmark.client import ServerSession

KEY_COLUMNS = columns("name", "creation", "expiration", "revoked", "uuid")
_LONGEST_TTL_S = 2**32 - 1

User = Annotated[str, typer.Argument(metavar="USER", help="Slug or UUID of the user.", show_default=False)]
Project = Annotated[str, typer.Argument(metavar="PROJECT", help="Slug or UUID of the project.", show_default=False)]
Key = Annotated[str, typer.Argument(metavar="KEY", help="UUID of the key.", show_default=False)]
Ttl = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Seconds that it is valid, or with a unit, as in 30d. Without it: 136 years."),
]
_SaveKey = Annotated[
    Path | None,
    typer.Option("--save-key", metavar="FILE", help="Put the key into a new file that only you can read."),
]


def seconds_of(ttl: str | None) -> int | None:
    """Return the lifetime that ``--ttl`` asks for, in whole seconds.

    Raises:
        InputError: It is no time, or not one between a second and 2³² - 1 seconds.
    """
    if ttl is None:
        return None
    # Bare numbers go up to twice what a duration can be.
    seconds = int(ttl[:20]) if ttl.isascii() and ttl.isdigit() else int(parse_seconds(ttl, field="--ttl"))
    if not 1 <= seconds <= _LONGEST_TTL_S:
        raise InputError("--ttl", ttl, f"a key is valid for 1 to {_LONGEST_TTL_S} seconds")
    return seconds


def user_key_group() -> typer.Typer:
    """Return the group of a user's keys."""
    app = group_of("Keys of a user, for programs.")

    @remote_command(app, "list", "ls", sort=("name",), answers="UserKeyBody[]")
    async def list_keys(
        server: ServerSession,
        *,
        user: User,
        name: OnlyName = None,
        search: Search = None,
        revoked: OnlyRevoked = False,
        paging: Paging,
    ) -> View:
        """List the keys of a user. Their secrets are nowhere."""
        query = {"name": name, "search": search, "revoked": revoked or None}
        return listing(await paging.fetch(server, "users", user, "keys", query=query), KEY_COLUMNS)

    @remote_command(app, "create", "add", answers="CreatedUserKeyBody")
    async def create_key(
        server: ServerSession, *, user: User, name: Name, ttl: Ttl = None, save_key: _SaveKey = None
    ) -> View:
        """Make a key and show it, this once. Needs the token of a sign-in: a key makes no keys of its user."""
        return await _create(server, ("users", user, "keys"), name, ttl, save_key)

    _one_key(app, "users", User, answers="UserKeyBody")
    return app


def project_key_group() -> typer.Typer:
    """Return the group of a project's keys."""
    app = group_of("Keys of a project: they submit to it and read it, and nothing else.")

    @remote_command(app, "list", "ls", sort=("name",), answers="ProjectKeyBody[]")
    async def list_keys(
        server: ServerSession,
        *,
        project: Project,
        name: OnlyName = None,
        search: Search = None,
        revoked: OnlyRevoked = False,
        paging: Paging,
    ) -> View:
        """List the keys of a project. Their secrets are nowhere."""
        query = {"name": name, "search": search, "revoked": revoked or None}
        return listing(await paging.fetch(server, "projects", project, "keys", query=query), KEY_COLUMNS)

    @remote_command(app, "create", "add", answers="CreatedProjectKeyBody")
    async def create_key(
        server: ServerSession, *, project: Project, name: Name, ttl: Ttl = None, save_key: _SaveKey = None
    ) -> View:
        """Make a key for continuous integration and show it, this once."""
        return await _create(server, ("projects", project, "keys"), name, ttl, save_key)

    _one_key(app, "projects", Project, answers="ProjectKeyBody")
    return app


async def _create(
    server: ServerSession, path: tuple[str, ...], name: str, ttl: str | None, save_key: Path | None
) -> View:
    body = only_given({"name": name, "ttl": seconds_of(ttl)})
    with SecretFile(save_key) as file:
        return file.keep((await server.call("POST", *path, body=body)).value)


def _one_key(app: typer.Typer, owners: str, owner_argument: object, *, answers: str) -> None:
    """Add the commands that work on one key, which are the same for users and projects."""

    async def view_key(server: ServerSession, *, owner: str, key_uuid: Key) -> View:
        """Show a key, without its secret."""
        return single((await server.call("GET", owners, owner, "keys", key_uuid)).value)

    async def update_key(server: ServerSession, *, owner: str, key_uuid: Key, name: NewName = None) -> View:
        """Rename a key."""
        body = changes({"name": name})
        return single((await server.call("PATCH", owners, owner, "keys", key_uuid, body=body)).value)

    async def revoke_key(server: ServerSession, *, owner: str, key_uuid: Key) -> View:
        """Revoke a key for good, at once."""
        await server.call("DELETE", owners, owner, "keys", key_uuid)
        return done(f"key {key_uuid} is revoked")

    verbs = (
        (view_key, "view", "get", answers),
        (update_key, "update", "edit", answers),
        (revoke_key, "revoke", "rm", None),
    )
    for function, name, alias, shape in verbs:
        function.__annotations__["owner"] = owner_argument
        remote_command(app, name, alias, answers=shape)(function)


app = user_key_group()
"""``metalmark key``, the same as ``metalmark user key``."""
