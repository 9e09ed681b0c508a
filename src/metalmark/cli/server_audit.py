"""``metalmark server admin audit``: what was administered, by whom, from where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from metalmark.cli.server_options import ConfigFile, Database, with_store
from metalmark.cli.view import View, moment, plain, show
from metalmark.model import parse_uuid

if TYPE_CHECKING:
    from metalmark.client import JsonValue
    from metalmark.store import ActRecord, Store

_HEADER = ("time", "actor", "from", "action", "subject", "details")


def audit(  # noqa: PLR0917  # each is a flag
    subject: Annotated[str | None, typer.Option(metavar="UUID", help="Only acts on this user, project, …")] = None,
    actor: Annotated[str | None, typer.Option(metavar="UUID", help="Only acts of this user or key.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The most acts to show.")] = 50,
    config: ConfigFile = None,
    database: Database = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Show the audit log of a server, the latest act first."""
    subject_id = None if subject is None else parse_uuid(subject, field="--subject")
    actor_id = None if actor is None else parse_uuid(actor, field="--actor")

    async def work(store: Store) -> tuple[tuple[ActRecord, ...], int]:
        from metalmark.store import Page, list_acts

        async with store.read() as connection:
            return await list_acts(connection, page=Page(limit=limit), subject_id=subject_id, actor_id=actor_id)

    acts, total = with_store(config, database, work)
    notes = (f"{len(acts)} of {total}; --limit shows more",) if total > len(acts) else ()
    values = [_value(record) for record in acts]
    show(View(value=values, header=_HEADER, rows=tuple(map(_row, values)), notes=notes), as_json=as_json)


def _value(record: ActRecord) -> dict[str, JsonValue]:
    act = record.act
    return {
        "time": record.at.replace(microsecond=0, tzinfo=None).isoformat() + "Z",
        "actor_kind": act.actor_kind,
        "actor": _text(act.actor_id),
        "address": act.address,
        "request_id": act.request_id,
        "action": act.action,
        "subject_kind": act.subject_kind,
        "subject": _text(act.subject_id),
        "details": dict(act.details),
    }


def _text(identifier: UUID | None) -> str | None:
    return None if identifier is None else str(identifier)


def _row(value: dict[str, JsonValue]) -> tuple[str, ...]:
    details = value["details"]
    pairs = details.items() if isinstance(details, dict) else ()
    return (
        moment(value["time"]),
        f"{value['actor_kind']} {plain(value['actor'])}",
        plain(value["address"]),
        plain(value["action"]),
        f"{value['subject_kind']} {plain(value['subject'])}",
        ", ".join(f"{name}={plain(each)}" for name, each in pairs) or plain(None),
    )
