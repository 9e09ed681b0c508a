"""Which blobs the tables refer to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from metalmark.model import status_of
from metalmark.store.tables import jobs, reports


@dataclass(frozen=True, kw_only=True)
class BlobOwners:
    """What some reports and jobs refer to."""

    keys: frozenset[str]
    """Of their blobs."""
    active_jobs: frozenset[UUID]
    """Those that a runner holds: it may refer to a blob any moment."""


async def find_blob_owners(
    connection: AsyncConnection, *, report_ids: Sequence[UUID] = (), job_ids: Sequence[UUID] = ()
) -> BlobOwners:
    """Return what these reports and jobs refer to, those of them that are there; at most a few hundred at once."""
    keys: set[str | None] = set()
    active: set[UUID] = set()
    if report_ids:
        query = select(reports.c.results_key).where(reports.c.id.in_(report_ids))
        keys |= set((await connection.execute(query)).scalars())
    if job_ids:
        columns = (jobs.c.id, jobs.c.status, jobs.c.output_key)
        for row in await connection.execute(select(*columns).where(jobs.c.id.in_(job_ids))):
            keys.add(row.output_key)
            if status_of(row.status).is_active:
                active.add(row.id)
    return BlobOwners(keys=frozenset(key for key in keys if key is not None), active_jobs=frozenset(active))
