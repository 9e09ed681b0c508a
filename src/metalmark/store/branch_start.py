"""Where a branch begins: made at a start point, or moved to another one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from metalmark.model import BranchName, GitHash, NotFound, Slug
from metalmark.store.branches import BranchChanges, BranchRecord, create_branch, find_branch, update_branch
from metalmark.store.heads import StartPoint, begin_head, find_start_point


@dataclass(frozen=True, kw_only=True)
class StartRequest:
    """Where a branch is to begin."""

    branch: UUID | Slug | BranchName | None = None
    """One that does not exist, or has no version, is no start point, and no error."""
    hash: GitHash | None = None
    """The commit; without it, or when the branch does not have it, its latest version."""
    max_versions: int = 255
    """How many versions are shared with the start point at most."""
    reset: bool = False
    """Whether a new head begins in any case."""


def needs_new_head(current: StartPoint | None, wanted: StartPoint | None, *, reset: bool) -> bool:
    """Whether a branch that began at one point has to begin anew at another.

    The commits of the two versions count, not the one that was asked for: a start point without a commit moves on with
    the branch that it is on.
    """
    if reset:
        return True
    if wanted is None:
        return False
    if current is None or current.branch_id != wanted.branch_id:
        return True
    return wanted.version.hash is not None and wanted.version.hash != current.version.hash


async def find_branch_of_run(
    connection: AsyncConnection, *, project_id: UUID, identifier: UUID | Slug | BranchName
) -> BranchRecord | None:
    """Return the branch that a run means. What has the form of a slug may be a name whose branch got another slug."""
    found = await find_branch(connection, project_id=project_id, identifier=identifier)
    if found is None and isinstance(identifier, Slug):
        name = BranchName(identifier)
        return await find_branch(connection, project_id=project_id, identifier=name)
    return found


async def start_point_for(
    connection: AsyncConnection, *, project_id: UUID, request: StartRequest | None
) -> StartPoint | None:
    """Return the start point that a request comes to, None when there is none."""
    if request is None or request.branch is None:
        return None
    source = await find_branch_of_run(connection, project_id=project_id, identifier=request.branch)
    if source is None:
        return None
    return await find_start_point(connection, branch_id=source.id, hash=request.hash)


async def restart_branch(
    connection: AsyncConnection, branch: BranchRecord, request: StartRequest | None, *, now: datetime
) -> BranchRecord:
    """Give a branch a new head if the request comes to another start point than it has."""
    if request is None:
        return branch
    wanted = await start_point_for(connection, project_id=branch.project_id, request=request)
    if not needs_new_head(branch.head.start_point, wanted, reset=request.reset):
        return branch
    head = await begin_head(connection, branch_id=branch.id, start=wanted, max_versions=request.max_versions, now=now)
    return replace(branch, head=head)


async def branch_for_run(
    connection: AsyncConnection,
    *,
    project_id: UUID,
    identifier: UUID | Slug | BranchName,
    start: StartRequest | None,
    now: datetime,
) -> BranchRecord:
    """Return the branch that a run is on: made if there is none of this name, taken out of the archive if it is there.

    Raises:
        NotFound: The branch is named by a UUID, and there is none.
    """
    found = await find_branch_of_run(connection, project_id=project_id, identifier=identifier)
    if found is None:
        if isinstance(identifier, UUID):
            raise NotFound("branch", identifier)
        point = await start_point_for(connection, project_id=project_id, request=start)
        return await create_branch(
            connection,
            project_id=project_id,
            name=BranchName(identifier),
            slug=identifier if isinstance(identifier, Slug) else None,
            start=point,
            max_versions=start.max_versions if start is not None else 0,
            now=now,
        )
    if found.archived is not None:
        changes = BranchChanges(archived=False)
        found = await update_branch(connection, branch_id=found.id, changes=changes, now=now) or found
    return await restart_branch(connection, found, start, now=now)
