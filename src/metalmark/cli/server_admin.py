"""``metalmark server admin …``: what an operator does at the machine of a server, whether or not it runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from metalmark.cli.async_command import run_async
from metalmark.cli.remote import group_of
from metalmark.cli.secret_file import SecretFile
from metalmark.cli.server_options import ConfigFile, Database, read_place
from metalmark.cli.view import show
from metalmark.model import Email, UserName
from metalmark.system import SystemClock

if TYPE_CHECKING:
    from metalmark.model import ApiKey
    from metalmark.store import Store, UserRecord

T = TypeVar("T")

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
SaveKey = Annotated[
    Path | None,
    typer.Option("--save-key", metavar="FILE", help="Put the key into a new file instead of showing it."),
]


def add_server_administration(app: typer.Typer) -> None:
    """Add the group ``admin`` to the group ``server``."""
    admin = group_of("Look after the database of a server on this machine, whether or not it runs.")
    app.add_typer(admin, name="admin")
    admin.command("create-user")(create_user)
    admin.command("reset-key")(reset_key)


def with_store(config: Path | None, database: str | None, work: Callable[[Store], Awaitable[T]]) -> T:
    """Open the database of a server, do something with it, and close it.

    Raises:
        MetalmarkError: It cannot be opened, or the work has failed.
    """
    place = read_place(config, database=database)
    from metalmark.store import Store

    async def run() -> T:
        async with await Store.open(place.database) as store:
            return await work(store)

    return run_async(run)


def create_user(  # noqa: PLR0917  # each is a flag
    name: Annotated[str, typer.Option(help="Name of the user.")],
    email: Annotated[str, typer.Option(help="E-mail address; nothing is sent there.")],
    admin: Annotated[bool, typer.Option("--admin", help="Make the user an administrator of the server.")] = False,
    save_key: SaveKey = None,
    config: ConfigFile = None,
    database: Database = None,
    as_json: AsJson = False,
) -> None:
    """Make a user, with a key to sign in with."""
    parsed_name, parsed_email = UserName.parse(name, field="--name"), Email.parse(email, field="--email")

    async def work(store: Store) -> tuple[UserRecord, ApiKey]:
        from metalmark.server import make_account

        return await make_account(store, SystemClock(), name=parsed_name, email=parsed_email, admin=admin)

    with SecretFile(save_key) as file:
        user, key = with_store(config, database, work)
        show(file.keep({**_fields(user), "key": key.text}), as_json=as_json)


def reset_key(
    user: Annotated[str, typer.Argument(help="UUID, slug or e-mail address of the user.")],
    save_key: SaveKey = None,
    config: ConfigFile = None,
    database: Database = None,
    as_json: AsJson = False,
) -> None:
    """Give a user a new key; those the user has had so far stop working."""

    async def work(store: Store) -> tuple[UserRecord, ApiKey, int]:
        from metalmark.server import reset_key

        return await reset_key(store, SystemClock(), user)

    with SecretFile(save_key) as file:
        found, key, revoked = with_store(config, database, work)
        view = file.keep({**_fields(found), "key": key.text})
        stopped = "the key so far" if revoked == 1 else f"the {revoked} keys so far"
        notes = (*view.notes, f"{stopped} stopped working") if revoked else view.notes
        show(dataclasses.replace(view, notes=notes), as_json=as_json)


def _fields(user: UserRecord) -> dict[str, str | bool]:
    return {
        "uuid": str(user.id),
        "name": str(user.name),
        "slug": str(user.slug),
        "email": str(user.email),
        "admin": user.admin,
    }
