"""Images of a project as people see them, and which of them no rule keeps."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, and_, delete, exists, func, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from metalmark.model import Digest, JobStatus
from metalmark.store.page import Page, rows_of
from metalmark.store.registry_blobs import renew_named
from metalmark.store.tables import (
    jobs,
    registry_blobs,
    registry_manifest_blobs,
    registry_manifest_children,
    registry_manifests,
    registry_repositories,
    registry_tags,
)

_AT_ONCE = 200


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """A tag with the image that it stands for."""

    inner: str
    """Its repository within the project; empty for the project's own."""
    tag: str
    digest: Digest
    media_type: str
    size_bytes: int
    """Of its configuration and layers; of an index, those of all its images. What they share counts once."""
    pushed: datetime


async def list_images(
    connection: AsyncConnection, *, page: Page, project_id: UUID
) -> tuple[tuple[ImageRecord, ...], int]:
    """Return a page of a project's images, by repository and tag, and how many there are."""
    tags, manifests, repositories = registry_tags, registry_manifests, registry_repositories
    same = and_(manifests.c.repository_id == tags.c.repository_id, manifests.c.digest == tags.c.digest)
    joined = tags.join(manifests, same).join(repositories, repositories.c.id == tags.c.repository_id)
    columns = (repositories.c.inner, tags.c.tag, tags.c.digest, tags.c.pushed, manifests.c.media_type)
    query = select(*columns, _size().label("size_bytes")).select_from(joined)
    query = query.where(repositories.c.project_id == project_id)
    rows, total = await rows_of(connection, query.order_by(repositories.c.inner, tags.c.folded, tags.c.tag), page)
    return tuple(
        ImageRecord(
            inner=row.inner,
            tag=row.tag,
            digest=Digest.parse(row.digest),
            media_type=row.media_type,
            size_bytes=int(row.size_bytes),
            pushed=row.pushed,
        )
        for row in rows
    ), total


def _size() -> ColumnElement[int]:
    tags, blobs, children = registry_tags, registry_manifest_blobs, registry_manifest_children
    parts = select(children.c.digest).where(
        children.c.repository_id == tags.c.repository_id, children.c.manifest == tags.c.digest
    )
    named = select(blobs.c.digest).where(
        blobs.c.repository_id == tags.c.repository_id,
        or_(blobs.c.manifest == tags.c.digest, blobs.c.manifest.in_(parts.correlate(tags))),
    )
    total = func.coalesce(func.sum(registry_blobs.c.size_bytes), 0)
    return select(total).where(registry_blobs.c.digest.in_(named.correlate(tags))).correlate(tags).scalar_subquery()


async def images_of_jobs(connection: AsyncConnection) -> frozenset[tuple[UUID, str]]:
    """Return project and digest of each image in the server's registry that a job has still to run."""
    codes = [status.code for status in JobStatus if not status.has_run]
    query = select(jobs.c.project_id, jobs.c.config).where(jobs.c.own_image, jobs.c.status.in_(codes))
    found = {(row.project_id, str(row.config.get("digest"))) for row in await connection.execute(query)}
    return frozenset(found)


async def delete_old_tags(
    connection: AsyncConnection, *, keep: int | None, before: datetime | None, used: Collection[tuple[UUID, str]]
) -> int:
    """Delete the tags that no rule keeps, and return how many there were. What they stand for stays.

    Args:
        connection: Of a write.
        keep: How many of the newest of each repository stay; None for no such rule.
        before: Those that were set later stay; None for no such rule.
        used: Projects and digests of images that stay whatever the rules say.
    """
    if keep is None and before is None:
        return 0
    tags, repositories = registry_tags, registry_repositories
    newest = (tags.c.pushed.desc(), tags.c.folded, tags.c.tag)
    rank = func.row_number().over(partition_by=tags.c.repository_id, order_by=newest).label("rank")
    ranked = (
        select(tags.c.repository_id, tags.c.tag, tags.c.digest, tags.c.pushed, repositories.c.project_id, rank)
        .select_from(tags.join(repositories, repositories.c.id == tags.c.repository_id))
        .subquery()
    )
    conditions = [] if keep is None else [ranked.c.rank > keep]
    if before is not None:
        conditions.append(ranked.c.pushed < before)
    rows = await connection.execute(select(ranked).where(*conditions))
    gone = [(row.repository_id, row.tag, row.digest) for row in rows if (row.project_id, row.digest) not in used]
    deleted = 0
    for start in range(0, len(gone), _AT_ONCE):
        # By its digest too: a tag that was set anew in the meantime is another.
        this = tuple_(tags.c.repository_id, tags.c.tag, tags.c.digest).in_(gone[start : start + _AT_ONCE])
        deleted += (await connection.execute(delete(tags).where(this))).rowcount
    return deleted


async def forsaken_manifests(
    connection: AsyncConnection, *, before: datetime, used: Collection[tuple[UUID, str]]
) -> frozenset[tuple[UUID, str]]:
    """Return repository and digest of the manifests that have no tag, and that nothing names which has one.

    Args:
        connection: Of any transaction.
        before: Those that were pushed or asked for later are left out: the push of an index of them may be under way.
        used: Projects and digests of images that stay in any case.
    """
    manifests, children, repositories = registry_manifests, registry_manifest_children, registry_repositories
    subject = manifests.alias("subject")
    own = manifests.c.repository_id
    query = (
        select(own, manifests.c.digest, repositories.c.project_id)
        .select_from(manifests.join(repositories, repositories.c.id == own))
        .where(
            manifests.c.touched < before,
            ~exists().where(registry_tags.c.repository_id == own, registry_tags.c.digest == manifests.c.digest),
            ~exists().where(children.c.repository_id == own, children.c.digest == manifests.c.digest),
            # A signature goes after what it is of.
            ~exists().where(subject.c.repository_id == own, subject.c.digest == manifests.c.subject),
        )
    )
    rows = await connection.execute(query)
    return frozenset((row.repository_id, row.digest) for row in rows if (row.project_id, row.digest) not in used)


async def delete_manifests(connection: AsyncConnection, gone: Collection[tuple[UUID, str]], *, now: datetime) -> int:
    """Delete manifests by repository and digest, and return how many there were."""
    manifests, named, deleted = registry_manifests, sorted(gone, key=str), 0
    for start in range(0, len(named), _AT_ONCE):
        these = named[start : start + _AT_ONCE]
        naming = tuple_(registry_manifest_blobs.c.repository_id, registry_manifest_blobs.c.manifest).in_(these)
        await renew_named(connection, naming, now=now)
        this = tuple_(manifests.c.repository_id, manifests.c.digest).in_(these)
        deleted += (await connection.execute(delete(manifests).where(this))).rowcount
    return deleted
