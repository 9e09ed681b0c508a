"""``metalmark registry``: look after the registry of a server on this machine, whether or not it runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from metalmark.cli.async_command import run_async
from metalmark.cli.remote import group_of
from metalmark.cli.server_options import ConfigFile, Database, Storage, read_place
from metalmark.cli.view import View, show
from metalmark.model import InputError, StableError, format_bytes, parse_bytes
from metalmark.system import SystemClock

if TYPE_CHECKING:
    from metalmark.client import JsonValue
    from metalmark.server import Scrubbed, ServerConfig
    from metalmark.store import Blobs, RegistryCounts, Store

T = TypeVar("T")
app = group_of("Look after the registry of a server on this machine, whether or not it runs.")

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def _with_registry(
    config: Path | None,
    database: str | None,
    storage: str | None,
    work: Callable[[Store, Blobs, ServerConfig], Awaitable[T]],
) -> T:
    place = read_place(config, database=database, storage=storage)
    from metalmark.store import Blobs, Store

    async def run() -> T:
        async with await Store.open(place.database) as store:
            blobs = Blobs.open(place.storage)
            await blobs.answer()
            return await work(store, blobs, place.config)

    return run_async(run)


@app.command("gc")
def gc(config: ConfigFile = None, database: Database = None, storage: Storage = None, as_json: AsJson = False) -> None:
    """Collect now what nothing needs: uploads that lie still, blobs that no manifest names, bytes of both.

    A server does so by itself, every `registry.collect_every_s`; it may run meanwhile.
    """

    async def work(store: Store, blobs: Blobs, settings: ServerConfig) -> dict[str, int]:
        from metalmark.server import collect

        done = await collect(store, blobs, SystemClock(), settings.registry)
        return {
            "uploads": done.uploads,
            "unlinked": done.unlinked,
            "blobs": done.blobs,
            "deleted_bytes": done.deleted_bytes,
        }

    done = _with_registry(config, database, storage, work)
    titles = ("uploads that lay still", "blobs without a manifest", "blobs in no repository")
    rows = [(title, str(done[key])) for title, key in zip(titles, ("uploads", "unlinked", "blobs"), strict=True)]
    rows.append(("deleted", format_bytes(done["deleted_bytes"])))
    value: dict[str, JsonValue] = dict(done)
    show(View(value=value, rows=tuple(rows)), as_json=as_json)


@app.command("scrub")
def scrub(
    rate: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Read so much a second at most (50M); else as fast as it goes."),
    ] = None,
    config: ConfigFile = None,
    database: Database = None,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Read and hash everything, and find what the storage has lost or changed. Exit status 1 if there is such.

    A damaged blob is not there for clients until somebody pushes it again, which repairs it. A server may run
    meanwhile.
    """
    bytes_per_s = None if rate is None else parse_bytes(rate, field="--rate")
    if bytes_per_s == 0:
        raise InputError("--rate", rate, "nothing would ever be read", hint="leave it out for no limit")

    async def work(store: Store, blobs: Blobs, _settings: ServerConfig) -> Scrubbed:
        from metalmark.server import Scrub

        return await Scrub(store, blobs, SystemClock(), bytes_per_s=bytes_per_s).run()

    found = _with_registry(config, database, storage, work)
    damage: list[JsonValue] = [
        {
            "kind": each.kind,
            "digest": str(each.digest),
            "repositories": list(each.repositories),
            "found": each.found,
        }
        for each in found.damage
    ]
    value: dict[str, JsonValue] = {
        "blobs": found.blobs,
        "manifests": found.manifests,
        "read_bytes": found.read_bytes,
        "recovered": found.recovered,
        "damage": damage,
    }
    rows = (
        ("blobs", str(found.blobs)),
        ("manifests", str(found.manifests)),
        ("read", format_bytes(found.read_bytes)),
        ("recovered", str(found.recovered)),
        ("damaged", str(len(damage))),
        *((each.kind, f"{each.digest} of {', '.join(each.repositories)}: {each.found}") for each in found.damage),
    )
    show(View(value=value, rows=rows), as_json=as_json)
    if damage:
        raise StableError(
            f"{len(damage)} blobs or manifests are damaged",
            why="the storage or the database gave other bytes than were pushed",
            hint="push the images of these repositories again",
        )


@app.command("stats")
def stats(
    limit: Annotated[int, typer.Option(min=0, max=10_000, help="The most projects to show.")] = 20,
    config: ConfigFile = None,
    database: Database = None,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Show how much the registry holds, and whose it is."""

    async def work(store: Store, _blobs: Blobs, _settings: ServerConfig) -> tuple[RegistryCounts, list[JsonValue]]:
        from metalmark.store import read_project_shares, read_registry_counts

        async with store.read() as connection:
            shares = await read_project_shares(connection, most=limit)
            return await read_registry_counts(connection), [
                {
                    "project": share.slug,
                    "uuid": str(share.project_id),
                    "blobs": share.blobs,
                    "blob_bytes": share.blob_bytes,
                }
                for share in shares
            ]

    counts, projects = _with_registry(config, database, storage, work)
    value: dict[str, JsonValue] = {
        "repositories": counts.repositories,
        "tags": counts.tags,
        "manifests": counts.manifests,
        "manifest_bytes": counts.manifest_bytes,
        "blobs": counts.blobs,
        "blob_bytes": counts.blob_bytes,
        "visible_bytes": counts.visible_bytes,
        "damaged": counts.damaged,
        "uploads": counts.uploads,
        "upload_bytes": counts.upload_bytes,
        "condemned_bytes": counts.condemned_bytes,
    }
    rows = [(name.removesuffix("_bytes").replace("_", " "), _shown(name, number)) for name, number in value.items()]
    rows += [
        (str(each["project"]), _shown("_bytes", each["blob_bytes"])) for each in projects if isinstance(each, dict)
    ]
    show(View(value={**value, "projects": projects}, rows=tuple(rows)), as_json=as_json)


def _shown(name: str, number: JsonValue) -> str:
    return format_bytes(number) if name.endswith("_bytes") and isinstance(number, int) else str(number)
