"""``metalmark server admin …``: what an operator does at the machine of a server, whether or not it runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metalmark.cli.async_command import run_async
from metalmark.cli.remote import group_of
from metalmark.cli.secret_file import SecretFile
from metalmark.cli.server_audit import audit
from metalmark.cli.server_options import ConfigFile, Database, alone, read_place, with_store
from metalmark.cli.server_updates import add_server_updates
from metalmark.cli.view import View, done, show
from metalmark.model import Email, InputError, UserName
from metalmark.system import SystemClock

if TYPE_CHECKING:
    from metalmark.model import ApiKey
    from metalmark.store import Store, UserRecord

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
    admin.command("audit")(audit)
    admin.command("migrate")(migrate)
    admin.command("vacuum")(vacuum)
    admin.command("backup")(backup)
    admin.command("restore")(restore)
    add_server_updates(admin)


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
    """Give a user a new key; those the user has had so far stop working, and all sign-ins end."""

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


def migrate(config: ConfigFile = None, database: Database = None, as_json: AsJson = False) -> None:
    """Bring the tables of a database up to date, as a server does when it starts."""
    place = read_place(config, database=database)
    from metalmark.store import Store

    async def run() -> tuple[str, ...]:
        async with await Store.open(place.database, migrated=False) as store:
            return await store.migrate(SystemClock().now())

    taken = run_async(run)
    note = f"{len(taken)} steps were taken" if taken else "the tables are up to date"
    view = View(value={"taken": list(taken)}, rows=tuple(("taken", name) for name in taken), notes=(note,))
    show(view, as_json=as_json)


def vacuum(config: ConfigFile = None, database: Database = None) -> None:
    """Give unused space of a database back to the disk. A server that runs goes on, and its writes wait."""
    place = read_place(config, database=database)
    from metalmark.store import vacuum

    run_async(lambda: vacuum(place.database))
    show(done("unused space is given back"), as_json=False)


def backup(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="Where the copy goes; nothing may be there.")],
    config: ConfigFile = None,
    database: Database = None,
) -> None:
    """Copy a database as it is at one moment, while a server uses it.

    What is large is not in the database but in the storage: copy that afterwards, and the two fit together.
    """
    if target.exists():
        raise InputError("FILE", str(target), "there is a file already")
    place = read_place(config, database=database)
    from metalmark.store import back_up

    run_async(lambda: back_up(place.database, target))
    show(done(f"the copy is {target}"), as_json=False)


def restore(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="A copy that `backup` has made.")],
    confirmed: Annotated[bool, typer.Option("--yes", help="Replace what the database holds.")] = False,
    config: ConfigFile = None,
    database: Database = None,
) -> None:
    """Put a copy in place of all that a database holds. Stop every server of it first."""
    if not confirmed:
        raise InputError("--yes", "missing", "this replaces what the database holds", hint="say --yes")
    place = read_place(config, database=database)
    from metalmark.store import Store, restore

    async def run() -> None:
        await restore(place.database, source)
        # The copy may be of an older version.
        await (await Store.open(place.database)).close()

    with alone(place):
        run_async(run)
    show(done(f"the database is as it was in {source}"), as_json=False)
