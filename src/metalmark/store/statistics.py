"""How much of everything there is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Table, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from metalmark.store.tables import projects, reports, runners, signing_secrets, users

WEEK = timedelta(days=7)
MONTH = timedelta(days=30)


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """How many of a kind were made in the last week, the last 30 days, and ever."""

    week: int
    month: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What a server holds."""

    server_id: UUID
    """Identity of the server: that of its first signing secret, which every server has from its first start."""
    server_created: datetime
    users: Cohort
    projects: Cohort
    reports: Cohort
    runners: int
    """Those that are not archived."""


async def _cohort(connection: AsyncConnection, table: Table, now: datetime) -> Cohort:
    made = table.c.created
    query = select(
        func.count().filter(made > now - WEEK), func.count().filter(made > now - MONTH), func.count()
    ).select_from(table)
    week, month, total = (await connection.execute(query)).one()
    return Cohort(week=week, month=month, total=total)


async def read_statistics(connection: AsyncConnection, *, now: datetime) -> Statistics:
    """Count. Reads whole tables: for an administrator's eyes now and then, not for a monitor."""
    first = select(signing_secrets.c.id, signing_secrets.c.created).order_by(signing_secrets.c.created).limit(1)
    server_id, server_created = (await connection.execute(first)).one()
    active = select(func.count()).select_from(runners).where(runners.c.archived.is_(None))
    return Statistics(
        server_id=server_id,
        server_created=server_created,
        users=await _cohort(connection, users, now),
        projects=await _cohort(connection, projects, now),
        reports=await _cohort(connection, reports, now),
        runners=(await connection.execute(active)).scalar_one(),
    )
