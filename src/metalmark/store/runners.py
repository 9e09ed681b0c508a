"""Runners: the machines that jobs run on, the specs that each serves, and what its probes proved."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, Row, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from metalmark.model import Capabilities, Conflict, ResourceId, ResourceName, Slug, new_id, slugify
from metalmark.store.changes import archived_at, given
from metalmark.store.notices import Notice, NoticeKind, announce
from metalmark.store.page import Page
from metalmark.store.selection import EVERYTHING, Selection, is_called, selected_rows
from metalmark.store.specs import SpecRecord, spec_of
from metalmark.store.tables import runner_capabilities, runner_specs, runners, specs

_DIGESTS_AT_ONCE = 500


@dataclass(frozen=True, kw_only=True)
class RunnerRecord:
    """A runner."""

    id: UUID
    name: ResourceName
    slug: Slug
    spec_ids: tuple[UUID, ...]
    """The specs that it serves, archived ones too, in the order they were added."""
    last_heartbeat: datetime | None
    """When it last gave a sign of life; None before the first."""
    created: datetime
    modified: datetime
    archived: datetime | None
    key_created: datetime
    """Since when its key is good."""
    key_digest: str = field(repr=False)
    """Of the key that opens its channel."""


@dataclass(frozen=True, kw_only=True)
class RunnerChanges:
    """What of a runner is to be different; None leaves a field."""

    name: ResourceName | None = None
    slug: Slug | None = None
    archived: bool | None = None


@dataclass(frozen=True, kw_only=True)
class RunnerProof:
    """What a runner said of itself when it last connected."""

    capabilities: Capabilities
    proved: datetime
    version: str | None = None
    """Of its program."""
    protocol: str | None = None
    """The sub-protocol of its channel; None for a public runner."""
    facts: Mapping[str, Any] | None = None
    """Whatever else it says of its host; a JSON object."""


async def create_runner(
    connection: AsyncConnection, *, name: ResourceName, key_digest: str, now: datetime, slug: Slug | None = None
) -> RunnerRecord:
    """Make a runner with the digest of its key. Its slug is never changed to make it free.

    Raises:
        Conflict: The slug is taken.
    """
    chosen = slug or slugify(name) or str(uuid4())
    values = {
        "id": new_id(),
        "name": name,
        "slug": chosen,
        "key_hash": key_digest,
        "key_created": now,
        "created": now,
        "modified": now,
    }
    if await find_runner_by_slug(connection, chosen) is not None:
        raise Conflict(f"there is a runner {chosen} already", field="slug", hint="give another slug")
    row = (await connection.execute(insert(runners).values(**values).returning(runners))).one()
    return _runner(row, ())


async def find_runner(connection: AsyncConnection, identifier: ResourceId) -> RunnerRecord | None:
    """Return the runner of a UUID or slug, archived ones too."""
    return await _find(connection, is_called(runners, identifier))


async def find_runner_by_slug(connection: AsyncConnection, slug: str) -> RunnerRecord | None:
    """Return the runner of a slug, also of one that reads as a UUID."""
    return await _find(connection, runners.c.slug == slug)


async def find_runner_by_key(connection: AsyncConnection, key_digest: str) -> RunnerRecord | None:
    """Return the runner whose key has this digest, unless it is archived."""
    return await _find(connection, (runners.c.key_hash == key_digest) & runners.c.archived.is_(None))


async def runner_keys_in_force(connection: AsyncConnection, key_digests: Collection[str]) -> set[str]:
    """Return which of some digests are those of keys that open a channel now."""
    found: set[str] = set()
    digests = sorted(key_digests)
    for begin in range(0, len(digests), _DIGESTS_AT_ONCE):
        named = runners.c.key_hash.in_(digests[begin : begin + _DIGESTS_AT_ONCE])
        query = select(runners.c.key_hash).where(named & runners.c.archived.is_(None))
        found |= set((await connection.execute(query)).scalars())
    return found


async def list_runners(
    connection: AsyncConnection, *, page: Page, archived: bool = False, wanted: Selection = EVERYTHING
) -> tuple[tuple[RunnerRecord, ...], int]:
    """Return a page of runners, archived ones too if wanted, and how many match."""
    query = select(runners) if archived else select(runners).where(runners.c.archived.is_(None))
    rows, total = await selected_rows(connection, query, runners, wanted, page)
    served = await _spec_ids(connection, [row.id for row in rows])
    return tuple(_runner(row, served.get(row.id, ())) for row in rows), total


async def update_runner(
    connection: AsyncConnection, *, runner_id: UUID, changes: RunnerChanges, now: datetime
) -> RunnerRecord | None:
    """Change a runner, and return what it is then; None when there is none.

    Raises:
        Conflict: The slug is taken.
    """
    values = given(name=changes.name, slug=changes.slug) | archived_at(now, archived=changes.archived)
    return await _change(connection, runner_id, **values, modified=now)


async def rotate_runner_key(
    connection: AsyncConnection, *, runner_id: UUID, key_digest: str, now: datetime
) -> RunnerRecord | None:
    """Give a runner another key; what the old one opened is closed. None when there is no such runner.

    Raises:
        Conflict: The runner is archived.
    """
    found = await find_runner(connection, runner_id)
    if found is not None and found.archived is not None:
        raise Conflict(f"the runner {found.slug} is archived", field="runner", hint="bring it back first")
    return await _change(connection, runner_id, key_hash=key_digest, key_created=now, modified=now)


async def list_runner_specs(connection: AsyncConnection, *, runner_id: UUID) -> tuple[SpecRecord, ...]:
    """Return the specs that a runner serves, archived ones too, in the order they were added."""
    served = runner_specs.join(specs, specs.c.id == runner_specs.c.spec_id)
    query = select(specs).select_from(served).where(runner_specs.c.runner_id == runner_id)
    ordered = query.order_by(runner_specs.c.created, runner_specs.c.spec_id)
    return tuple(spec_of(row) for row in await connection.execute(ordered))


async def add_runner_spec(connection: AsyncConnection, *, runner_id: UUID, spec_id: UUID, now: datetime) -> None:
    """Have a runner serve a spec, be they archived or not.

    Raises:
        Conflict: It serves it already.
    """
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    values = {"runner_id": runner_id, "spec_id": spec_id, "created": now}
    added = dialect.insert(runner_specs).values(**values).on_conflict_do_nothing().returning(runner_specs.c.spec_id)
    if (await connection.execute(added)).first() is None:
        raise Conflict("the runner serves this spec already", field="spec")
    announce(connection, Notice(kind=NoticeKind.RUNNER_CHANGED, subject=runner_id))


async def remove_runner_spec(connection: AsyncConnection, *, runner_id: UUID, spec_id: UUID) -> bool:
    """Have a runner serve a spec no longer; return whether it did."""
    served = (runner_specs.c.runner_id == runner_id) & (runner_specs.c.spec_id == spec_id)
    removed = (await connection.execute(delete(runner_specs).where(served))).rowcount > 0
    if removed:
        announce(connection, Notice(kind=NoticeKind.RUNNER_CHANGED, subject=runner_id))
    return removed


async def note_heartbeat(connection: AsyncConnection, *, runner_id: UUID, now: datetime) -> None:
    """Keep when a runner last gave a sign of life."""
    await connection.execute(update(runners).where(runners.c.id == runner_id).values(last_heartbeat=now))


async def record_proof(connection: AsyncConnection, *, runner_id: UUID, proof: RunnerProof) -> None:
    """Keep what a runner says of itself in place of what it said before.

    Raises:
        Conflict: There is no such runner.
    """
    said = asdict(proof.capabilities) | {"sandboxes": sorted(proof.capabilities.sandboxes)}
    values = {
        "proved": proof.proved,
        "version": proof.version,
        "protocol": proof.protocol,
        "capabilities": said,
        "facts": None if proof.facts is None else dict(proof.facts),
    }
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    kept = dialect.insert(runner_capabilities).values(runner_id=runner_id, **values)
    await connection.execute(kept.on_conflict_do_update(index_elements=["runner_id"], set_=values))
    announce(connection, Notice(kind=NoticeKind.RUNNER_CHANGED, subject=runner_id))


async def find_proof(connection: AsyncConnection, *, runner_id: UUID) -> RunnerProof | None:
    """Return what a runner last said of itself; None when it never connected."""
    query = select(runner_capabilities).where(runner_capabilities.c.runner_id == runner_id)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _proof(row)


def capabilities_of(said: Mapping[str, Any]) -> Capabilities:
    """Return what a runner proved, of the document that is stored."""
    return Capabilities(**{**said, "sandboxes": frozenset(said["sandboxes"])})


def _proof(row: Row[Any]) -> RunnerProof:
    return RunnerProof(
        capabilities=capabilities_of(row.capabilities),
        proved=row.proved,
        version=row.version,
        protocol=row.protocol,
        facts=row.facts,
    )


def _runner(row: Row[Any], spec_ids: Sequence[UUID]) -> RunnerRecord:
    return RunnerRecord(
        id=row.id,
        name=ResourceName(row.name),
        slug=Slug(row.slug),
        spec_ids=tuple(spec_ids),
        last_heartbeat=row.last_heartbeat,
        created=row.created,
        modified=row.modified,
        archived=row.archived,
        key_created=row.key_created,
        key_digest=row.key_hash,
    )


async def _find(connection: AsyncConnection, condition: ColumnElement[bool]) -> RunnerRecord | None:
    row = (await connection.execute(select(runners).where(condition))).one_or_none()
    if row is None:
        return None
    return _runner(row, (await _spec_ids(connection, [row.id])).get(row.id, ()))


async def _spec_ids(connection: AsyncConnection, runner_ids: Sequence[UUID]) -> dict[UUID, list[UUID]]:
    if not runner_ids:
        return {}
    query = select(runner_specs).where(runner_specs.c.runner_id.in_(runner_ids))
    found: dict[UUID, list[UUID]] = {}
    for row in await connection.execute(query.order_by(runner_specs.c.created, runner_specs.c.spec_id)):
        found.setdefault(row.runner_id, []).append(row.spec_id)
    return found


async def _change(connection: AsyncConnection, runner_id: UUID, **values: object) -> RunnerRecord | None:
    changed = update(runners).where(runners.c.id == runner_id).values(**values).returning(runners)
    row = (await connection.execute(changed)).one_or_none()
    if row is None:
        return None
    announce(connection, Notice(kind=NoticeKind.RUNNER_CHANGED, subject=runner_id))
    return _runner(row, (await _spec_ids(connection, [runner_id])).get(runner_id, ()))
