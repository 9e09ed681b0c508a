"""Live output: what a job prints while it runs, as rows of bounded pieces that several followers read.

A piece is numbered by the offset of its first byte among all that the job printed under its lease; the bytes of both
streams count. A new lease begins anew, and what an older one printed goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, StrEnum
from uuid import UUID

from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from metalmark.model import ACTIVE, MIB
from metalmark.store.notices import Notice, NoticeKind, announce
from metalmark.store.tables import job_output_chunks as chunks
from metalmark.store.tables import jobs

LIVE_OUTPUT_MAX_BYTES = 32 * MIB
"""Most live output of one job; its final output has a bound of its own."""
_ACTIVE_CODES = sorted(status.code for status in ACTIVE)


class OutputStream(IntEnum):
    """Where a job printed."""

    STDOUT = 1
    STDERR = 2


@dataclass(frozen=True, kw_only=True)
class NewChunk:
    """A piece of output as a runner sends it."""

    iteration: int
    stream: OutputStream
    content: bytes


@dataclass(frozen=True, kw_only=True)
class ChunkRecord:
    """A piece of output as it is stored."""

    lease: int
    offset: int
    iteration: int
    stream: OutputStream
    at: datetime
    content: bytes

    @property
    def end(self) -> int:
        """Offset of the byte after it."""
        return self.offset + len(self.content)


class Appended(StrEnum):
    """What became of pieces that were to be stored."""

    STORED = "stored"
    """All of them are there, these or those of an earlier try."""
    NOT_HELD = "not_held"
    """The job is not, or no longer, held under this lease."""
    FULL = "full"
    """The job's live output is at its bound; nothing was stored."""


async def append_output(
    connection: AsyncConnection,
    *,
    job: UUID,
    runner: UUID,
    lease: int,
    offset: int,
    new: Sequence[NewChunk],
    now: datetime,
) -> Appended:
    """Store pieces of live output, and tell the followers. What was stored before is passed over.

    Args:
        connection: Of a write.
        job: Whose output.
        runner: Who sends it; it has to hold the job.
        lease: Under which lease.
        offset: Of the first piece.
        new: The pieces, one after the other.
        now: When they came.
    """
    held = select(jobs.c.id).where(
        jobs.c.id == job, jobs.c.runner_id == runner, jobs.c.lease == lease, jobs.c.status.in_(_ACTIVE_CODES)
    )
    if (await connection.execute(held)).one_or_none() is None:
        return Appended.NOT_HELD
    if offset + sum(len(chunk.content) for chunk in new) > LIVE_OUTPUT_MAX_BYTES:
        return Appended.FULL
    stored_up_to = await _stored_up_to(connection, job, lease)
    rows = []
    for chunk in new:
        # Pieces may be cut otherwise than they were the last time.
        known = max(0, stored_up_to - offset)
        if known < len(chunk.content):
            rows.append(
                {
                    "job_id": job,
                    "sequence": offset + known,
                    "lease": lease,
                    "iteration": chunk.iteration,
                    "stream": int(chunk.stream),
                    "at": now,
                    "content": chunk.content[known:],
                }
            )
        offset += len(chunk.content)
    if rows:
        await connection.execute(insert(chunks), rows)
        announce(connection, Notice(kind=NoticeKind.JOB_OUTPUT, subject=job))
    return Appended.STORED


async def _stored_up_to(connection: AsyncConnection, job: UUID, lease: int) -> int:
    last = (
        await connection.execute(
            select(chunks.c.lease, chunks.c.sequence, func.length(chunks.c.content))
            .where(chunks.c.job_id == job)
            .order_by(chunks.c.sequence.desc())
            .limit(1)
        )
    ).one_or_none()
    if last is None:
        return 0
    if last[0] != lease:
        await connection.execute(delete(chunks).where(chunks.c.job_id == job))
        return 0
    end: int = last[1] + last[2]
    return end


async def read_output(
    connection: AsyncConnection, *, job: UUID, offset: int = 0, most: int = 32
) -> tuple[ChunkRecord, ...]:
    """Return a job's pieces of live output from an offset on, in order, at most so many."""
    query = (
        select(chunks)
        .where(chunks.c.job_id == job, chunks.c.sequence >= offset)
        .order_by(chunks.c.sequence)
        .limit(most)
    )
    return tuple(
        ChunkRecord(
            lease=row.lease,
            offset=row.sequence,
            iteration=row.iteration,
            stream=OutputStream(row.stream),
            at=row.at,
            content=bytes(row.content),
        )
        for row in await connection.execute(query)
    )


async def lease_of_output(connection: AsyncConnection, job: UUID) -> int | None:
    """Return the lease that a job's live output was printed under, or None when there is none."""
    query = select(chunks.c.lease).where(chunks.c.job_id == job).order_by(chunks.c.sequence).limit(1)
    found: int | None = (await connection.execute(query)).scalar_one_or_none()
    return found


async def drop_old_output(connection: AsyncConnection, *, before: datetime, most: int = 100) -> int:
    """Delete the live output of jobs that ended before a time, of some of them; return of how many."""
    ended = (
        select(chunks.c.job_id)
        .join(jobs, jobs.c.id == chunks.c.job_id)
        .where(jobs.c.completed < before, jobs.c.status.not_in(_ACTIVE_CODES))
        .distinct()
        .limit(most)
    )
    found = list((await connection.execute(ended)).scalars())
    if found:
        await connection.execute(delete(chunks).where(chunks.c.job_id.in_(found)))
    return len(found)
