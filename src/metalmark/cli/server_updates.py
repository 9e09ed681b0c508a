"""``metalmark server admin publish-update``, ``withdraw-update``, ``list-updates``: what runners are to run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from metalmark.cli.async_command import run_async
from metalmark.cli.server_options import ConfigFile, Database, Storage, read_place
from metalmark.cli.view import View, done, moment, show, size
from metalmark.model import InputError
from metalmark.system import SystemClock

if TYPE_CHECKING:
    from metalmark.client import JsonValue
    from metalmark.store import Blobs, PublishedUpdate, Store

T = TypeVar("T")
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
_HEADER = ("for", "channel", "architecture", "version", "published", "size", "checksum")


def add_server_updates(admin: typer.Typer) -> None:
    """Add the commands to the group ``server admin``."""
    admin.command("publish-update")(publish_update)
    admin.command("withdraw-update")(withdraw_update)
    admin.command("list-updates")(list_updates)


def publish_update(  # noqa: PLR0917  # each is a flag
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An artifact of scripts/build-update.")],
    public: Annotated[
        bool, typer.Option("--public", help="It is a program for public runners, which replaces theirs.")
    ] = False,
    version: Annotated[
        str | None, typer.Option(metavar="TEXT", help="With --public: what the program says of itself.")
    ] = None,
    architecture: Annotated[str, typer.Option(metavar="NAME", help="With --public: x86_64 or aarch64.")] = "x86_64",
    channel: Annotated[str, typer.Option(metavar="NAME", help="With --public: stable or canary.")] = "stable",
    config: ConfigFile = None,
    database: Database = None,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Offer a version to runners that are not of it, newer or older. A server that runs tells them in half a minute.

    Runners that `metalmark runner install-service` made update themselves between two jobs; others say that there is
    another version. What was published for the same runners before is withdrawn.
    """
    if public and version is None:
        raise InputError("--version", "", "--public needs it")

    async def work(store: Store, blobs: Blobs) -> tuple[PublishedUpdate, ...]:
        from metalmark.server import UpdatePublisher

        publisher = UpdatePublisher(store, blobs, SystemClock())
        if not public:
            return await publisher.publish_artifact(file)
        return await publisher.publish_program(file, version=version or "", architecture=architecture, channel=channel)

    _show(_with_blobs(config, database, storage, work), as_json=as_json)


def withdraw_update(
    checksum: Annotated[str, typer.Argument(help="SHA-256 of the update; list-updates shows it.")],
    config: ConfigFile = None,
    database: Database = None,
    storage: Storage = None,
) -> None:
    """Offer a version no more. Runners that have it keep it."""

    async def work(store: Store, blobs: Blobs) -> int:
        from metalmark.server import UpdatePublisher

        return await UpdatePublisher(store, blobs, SystemClock()).withdraw(checksum)

    _with_blobs(config, database, storage, work)
    show(done("the update is withdrawn"), as_json=False)


def list_updates(config: ConfigFile = None, database: Database = None, as_json: AsJson = False) -> None:
    """List what runners are offered."""

    async def work(store: Store, _: Blobs) -> tuple[PublishedUpdate, ...]:
        from metalmark.store import list_updates

        async with store.read() as connection:
            return await list_updates(connection)

    _show(_with_blobs(config, database, None, work), as_json=as_json)


def _with_blobs(
    config: Path | None, database: str | None, storage: str | None, work: Callable[[Store, Blobs], Awaitable[T]]
) -> T:
    place = read_place(config, database=database, storage=storage)
    from metalmark.store import Blobs, Store

    async def run() -> T:
        async with await Store.open(place.database) as store:
            return await work(store, Blobs.open(place.storage))

    return run_async(run)


def _show(found: tuple[PublishedUpdate, ...], *, as_json: bool) -> None:
    values: list[JsonValue] = [
        {
            "audience": str(update.audience),
            "channel": update.channel,
            "architecture": update.architecture,
            "version": update.version,
            "published": update.published.replace(microsecond=0, tzinfo=None).isoformat() + "Z",
            "size_bytes": update.size_bytes,
            "checksum": update.checksum,
        }
        for update in found
    ]
    rows = tuple(
        (
            "our runners" if update.audience == "metalmark" else "public runners",
            update.channel,
            update.architecture,
            update.version,
            moment(update.published.replace(microsecond=0, tzinfo=None).isoformat() + "Z"),
            size(update.size_bytes),
            update.checksum,
        )
        for update in found
    )
    notes = () if found else ("nothing is published",)
    show(View(value=values, header=_HEADER, rows=rows, notes=notes), as_json=as_json)
