"""What goes with a project: its jobs that have not ended, and its content outside of the database."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import structlog

from metalmark.model import JobEvent, StoreUnavailable
from metalmark.server.context import ServerContext
from metalmark.store import Connection, erase_project, move_job, projects_of, unfinished_jobs

_log = structlog.get_logger(__name__)


async def stop_jobs(connection: Connection, *, project_id: UUID, now: datetime) -> None:
    """Cancel the jobs of a project that have not ended: nobody could see their results."""
    for job in await unfinished_jobs(connection, project_id=project_id):
        await move_job(connection, job, JobEvent.CANCEL, now=now)


async def stop_all_jobs(connection: Connection, *, organization_id: UUID, now: datetime) -> None:
    """Cancel the jobs of all projects of an organization that have not ended."""
    for project_id in await projects_of(connection, organization_id=organization_id):
        await stop_jobs(connection, project_id=project_id, now=now)


async def erase_stopped(connection: Connection, *, project_id: UUID, now: datetime) -> tuple[str, ...]:
    """Delete a project for good, and return the keys of blobs that nothing refers to any more."""
    # Canceled before they go: runners that work on them are told.
    await stop_jobs(connection, project_id=project_id, now=now)
    return await erase_project(connection, project_id=project_id, now=now)


async def erase_all_projects(connection: Connection, *, organization_id: UUID, now: datetime) -> tuple[str, ...]:
    """Delete all projects of an organization for good; as for one."""
    keys: list[str] = []
    for project_id in await projects_of(connection, organization_id=organization_id):
        keys += await erase_stopped(connection, project_id=project_id, now=now)
    return tuple(keys)


async def forget_blobs(context: ServerContext, keys: tuple[str, ...]) -> None:
    """Delete blobs that no record names any more. One that cannot be deleted only takes space."""
    try:
        await context.blobs.delete(*keys)
    except StoreUnavailable as error:
        _log.warning("blobs not deleted", count=len(keys), error=str(error))
