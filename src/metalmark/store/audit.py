"""The audit log: who did what to whom, for acts of administration. It is only ever added to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from metalmark.model import new_id
from metalmark.store.page import Page, rows_of
from metalmark.store.tables import audit_log


@dataclass(frozen=True, kw_only=True)
class Act:
    """One act of administration."""

    actor_kind: str
    """``user``, ``user_key``, ``project_key``, ``operator`` (at the machine), ``anonymous``."""
    actor_id: UUID | None
    action: str
    """What was done, as ``noun.verb``: ``user.update``, ``runner.rotate_key``."""
    subject_kind: str
    subject_id: UUID | None
    address: str | None = None
    """The client's."""
    request_id: str | None = None
    details: Mapping[str, str | int | bool | None] = field(default_factory=dict)
    """What changed. Never a secret."""


@dataclass(frozen=True, kw_only=True)
class ActRecord:
    """An act as it was kept."""

    id: UUID
    at: datetime
    act: Act


async def record_act(connection: AsyncConnection, act: Act, *, now: datetime) -> None:
    """Keep an act, in the transaction that does it: there is none of the two without the other."""
    await connection.execute(
        insert(audit_log).values(
            id=new_id(),
            at=now,
            actor_kind=act.actor_kind,
            actor_id=act.actor_id,
            action=act.action,
            subject_kind=act.subject_kind,
            subject_id=act.subject_id,
            address=act.address,
            request_id=act.request_id,
            details=dict(act.details),
        )
    )


def _record(row: Row[Any]) -> ActRecord:
    fields = row._mapping  # noqa: SLF001  how SQLAlchemy spells its public mapping
    names = ("actor_kind", "actor_id", "action", "subject_kind", "subject_id", "address", "request_id")
    act = Act(**{name: fields[name] for name in names}, details=fields["details"] or {})
    return ActRecord(id=fields["id"], at=fields["at"], act=act)


def acts_query(*, subject_id: UUID | None = None, actor_id: UUID | None = None) -> Select[Any]:
    """The query of a list of acts, the latest first."""
    query = select(audit_log)
    if subject_id is not None:
        query = query.where(audit_log.c.subject_id == subject_id)
    if actor_id is not None:
        query = query.where(audit_log.c.actor_id == actor_id)
    return query.order_by(audit_log.c.at.desc())


async def list_acts(
    connection: AsyncConnection, *, page: Page, subject_id: UUID | None = None, actor_id: UUID | None = None
) -> tuple[tuple[ActRecord, ...], int]:
    """Return a page of acts, the latest first, and how many match."""
    rows, total = await rows_of(connection, acts_query(subject_id=subject_id, actor_id=actor_id), page)
    return tuple(_record(row) for row in rows), total
