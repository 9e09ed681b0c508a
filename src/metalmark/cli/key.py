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
    return _key_group(
        "Keys of a user, for programs.",
        owners="users",
        owner_argument=User,
        answers="UserKeyBody",
        making="Make a key and show it, this once. Needs the token of a sign-in: a key makes no keys of its user.",
    )


def project_key_group() -> typer.Typer:
    """Return the group of a project's keys."""
    return _key_group(
        "Keys of a project: they submit to it and read it, and nothing else.",
        owners="projects",
        owner_argument=Project,
        answers="ProjectKeyBody",
        making="Make a key for continuous integration and show it, this once.",
    )


def _key_group(about: str, *, owners: str, owner_argument: object, answers: str, making: str) -> typer.Typer:
    """Return a group of keys: the commands are the same for users and projects.

    Args:
        about: What they are for.
        owners: Whose they are, in the path of a request.
        owner_argument: The argument that names the owner.
        answers: Body of a key.
        making: Help of the command that makes one.
    """
    app = group_of(about)

    async def list_keys(
        server: ServerSession,
        *,
        owner: str,
        name: OnlyName = None,
        search: Search = None,
        revoked: OnlyRevoked = False,
        paging: Paging,
    ) -> View:
        """List the keys. Their secrets are nowhere."""
        query = {"name": name, "search": search, "revoked": revoked or None}
        return listing(await paging.fetch(server, owners, owner, "keys", query=query), KEY_COLUMNS)

    async def create_key(
        server: ServerSession, *, owner: str, name: Name, ttl: Ttl = None, save_key: _SaveKey = None
    ) -> View:
        body = only_given({"name": name, "ttl": seconds_of(ttl)})
        with SecretFile(save_key) as file:
            return file.keep((await server.call("POST", owners, owner, "keys", body=body)).value)

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

    create_key.__doc__ = making
    verbs = (
        (list_keys, "list", "ls", f"{answers}[]"),
        (create_key, "create", "add", f"Created{answers}"),
        (view_key, "view", "get", answers),
        (update_key, "update", "edit", answers),
        (revoke_key, "revoke", "rm", None),
    )
    for function, name, alias, shape in verbs:
        function.__annotations__["owner"] = owner_argument
        sort = ("name",) if function is list_keys else ()
        remote_command(app, name, alias, answers=shape, sort=sort)(function)
    return app


app = user_key_group()
"""``metalmark key``, the same as ``metalmark user key``."""
