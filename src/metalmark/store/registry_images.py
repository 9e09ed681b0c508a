"""Images of a project as people see them, and which of them no rule keeps."""

from __future__ import annotations

from collections.abc import Collection, Sequence
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


async def images_of_jobs(connection: AsyncConnection, *, project_id: UUID) -> frozenset[str]:
    """Return the digest of each image in the server's registry that a job of a project has still to run."""
    codes = [status.code for status in JobStatus if not status.has_run]
    query = select(jobs.c.config).where(jobs.c.project_id == project_id, jobs.c.status.in_(codes), jobs.c.own_image)
    return frozenset(str(config.get("digest")) for config in (await connection.execute(query)).scalars())


async def old_tags(
    connection: AsyncConnection, *, repository_id: UUID, keep: int | None, before: datetime | None
) -> tuple[tuple[str, str], ...]:
    """Return the tags of a repository that no rule keeps, each with the digest that it stands for.

    Args:
        connection: Of any transaction.
        repository_id: The repository.
        keep: How many of the newest stay; None for no such rule.
        before: Those that were set later stay; None for no such rule.
    """
    if keep is None and before is None:
        return ()
    tags = registry_tags
    newest = (tags.c.pushed.desc(), tags.c.folded, tags.c.tag)
    columns = (tags.c.tag, tags.c.digest, tags.c.pushed)
    older = select(*columns).where(tags.c.repository_id == repository_id).order_by(*newest).offset(keep or 0).subquery()
    query = select(older.c.tag, older.c.digest)
    if before is not None:
        query = query.where(older.c.pushed < before)
    return tuple((row.tag, row.digest) for row in await connection.execute(query))


async def delete_tags(connection: AsyncConnection, *, repository_id: UUID, gone: Sequence[tuple[str, str]]) -> int:
    """Delete tags of a repository by their names and digests, and return how many there were.

    What they stand for stays. A tag that was set anew in the meantime is another.
    """
    tags, deleted = registry_tags, 0
    for start in range(0, len(gone), _AT_ONCE):
        these = tuple_(tags.c.tag, tags.c.digest).in_(gone[start : start + _AT_ONCE])
        deleted += (await connection.execute(delete(tags).where(tags.c.repository_id == repository_id, these))).rowcount
    return deleted


async def forsaken_manifests(connection: AsyncConnection, *, repository_id: UUID, before: datetime) -> frozenset[str]:
    """Return the digests of a repository's manifests that have no tag, and that nothing names which has one.

    Args:
        connection: Of any transaction.
        repository_id: The repository.
        before: Those that were pushed or asked for later are left out: the push of an index of them may be under way.
    """
    manifests, children = registry_manifests, registry_manifest_children
    subject = manifests.alias("subject")
    query = select(manifests.c.digest).where(
        manifests.c.repository_id == repository_id,
        manifests.c.touched < before,
        ~exists().where(registry_tags.c.repository_id == repository_id, registry_tags.c.digest == manifests.c.digest),
        ~exists().where(children.c.repository_id == repository_id, children.c.digest == manifests.c.digest),
        # A signature goes after what it is of.
        ~exists().where(subject.c.repository_id == repository_id, subject.c.digest == manifests.c.subject),
    )
    return frozenset((await connection.execute(query)).scalars())


async def delete_manifests(
    connection: AsyncConnection, *, repository_id: UUID, gone: Collection[str], now: datetime
) -> int:
    """Delete manifests of a repository by their digests, and return how many there were."""
    manifests, named, deleted = registry_manifests, sorted(gone), 0
    blobs = registry_manifest_blobs
    for start in range(0, len(named), _AT_ONCE):
        these = named[start : start + _AT_ONCE]
        naming = and_(blobs.c.repository_id == repository_id, blobs.c.manifest.in_(these))
        await renew_named(connection, naming, now=now)
        this = and_(manifests.c.repository_id == repository_id, manifests.c.digest.in_(these))
        deleted += (await connection.execute(delete(manifests).where(this))).rowcount
    return deleted
