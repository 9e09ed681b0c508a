"""Looking after the registry: its blobs and manifests one after the other, what is damaged, how much there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import FromClause, and_, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from metalmark.model import Digest
from metalmark.store.tables import (
    projects,
    registry_blobs,
    registry_contents,
    registry_links,
    registry_manifests,
    registry_repositories,
    registry_tags,
    registry_uploads,
)


@dataclass(frozen=True, kw_only=True)
class StoredBlob:
    """A blob as somebody who checks all of them sees it."""

    digest: Digest
    size_bytes: int
    content_id: UUID
    damaged: datetime | None


@dataclass(frozen=True, kw_only=True)
class StoredManifest:
    """A manifest, where it is and what it consists of."""

    repository_id: UUID
    digest: Digest
    content: bytes


@dataclass(frozen=True, kw_only=True)
class RegistryCounts:
    """How much the registry holds."""

    repositories: int
    tags: int
    manifests: int
    manifest_bytes: int
    blobs: int
    blob_bytes: int
    """Of each blob once, as the storage has them."""
    visible_bytes: int
    """Of each blob as often as there are repositories that have it."""
    damaged: int
    uploads: int
    upload_bytes: int
    condemned_bytes: int
    """What nothing refers to any more, and the next collections delete."""


@dataclass(frozen=True, kw_only=True)
class ProjectShare:
    """What one project has in the registry."""

    project_id: UUID
    slug: str
    blobs: int
    blob_bytes: int
    """Each of its blobs once, those that other projects have too among them."""


async def stored_blobs(connection: AsyncConnection, *, after: Digest | None, limit: int) -> tuple[StoredBlob, ...]:
    """Return blobs by digest, those after one."""
    query = select(registry_blobs).order_by(registry_blobs.c.digest).limit(limit)
    if after is not None:
        query = query.where(registry_blobs.c.digest > str(after))
    return tuple(
        StoredBlob(
            digest=Digest.parse(row.digest),
            size_bytes=row.size_bytes,
            content_id=row.content_id,
            damaged=row.damaged,
        )
        for row in await connection.execute(query)
    )


async def mark_blob(connection: AsyncConnection, blob: StoredBlob, *, damaged: datetime | None) -> bool:
    """Note since when a blob is damaged, or that it is sound; return False when it is another by now, or gone."""
    same = and_(registry_blobs.c.digest == str(blob.digest), registry_blobs.c.content_id == blob.content_id)
    return (await connection.execute(update(registry_blobs).where(same).values(damaged=damaged))).rowcount == 1


async def stored_manifests(
    connection: AsyncConnection, *, after: StoredManifest | None, limit: int
) -> tuple[StoredManifest, ...]:
    """Return manifests by repository and digest, those after one."""
    manifests = registry_manifests
    columns = (manifests.c.repository_id, manifests.c.digest, manifests.c.content)
    query = select(*columns).order_by(manifests.c.repository_id, manifests.c.digest).limit(limit)
    if after is not None:
        same = manifests.c.repository_id == after.repository_id
        later = and_(same, manifests.c.digest > str(after.digest))
        query = query.where(or_(manifests.c.repository_id > after.repository_id, later))
    return tuple(
        StoredManifest(repository_id=row.repository_id, digest=Digest.parse(row.digest), content=row.content)
        for row in await connection.execute(query)
    )


async def names_of_blob(connection: AsyncConnection, digest: Digest, *, most: int = 20) -> tuple[str, ...]:
    """Return repositories that have a blob, as ``PROJECT/NAME``."""
    joined = registry_links.join(
        registry_repositories, registry_repositories.c.id == registry_links.c.repository_id
    ).join(projects, projects.c.id == registry_repositories.c.project_id)
    query = (
        select(projects.c.slug, registry_repositories.c.inner)
        .select_from(joined)
        .where(registry_links.c.digest == str(digest))
        .order_by(projects.c.slug, registry_repositories.c.inner)
    )
    return tuple(_name(row.slug, row.inner) for row in await connection.execute(query.limit(most)))


async def name_of_repository(connection: AsyncConnection, repository_id: UUID) -> str:
    """Return a repository's name; its identifier when it is gone."""
    joined = registry_repositories.join(projects, projects.c.id == registry_repositories.c.project_id)
    query = select(projects.c.slug, registry_repositories.c.inner).select_from(joined)
    row = (await connection.execute(query.where(registry_repositories.c.id == repository_id))).one_or_none()
    return str(repository_id) if row is None else _name(row.slug, row.inner)


def _name(project: str, inner: str) -> str:
    return f"{project}/{inner}" if inner else project


async def _total(connection: AsyncConnection, source: FromClause, *columns: Any, where: Any = None) -> Sequence[int]:  # noqa: ANN401  SQLAlchemy's
    query = select(func.count(), *(func.coalesce(func.sum(column), 0) for column in columns)).select_from(source)
    row = (await connection.execute(query if where is None else query.where(where))).one()
    return [int(value) for value in row]


async def read_registry_counts(connection: AsyncConnection) -> RegistryCounts:
    """Count. Reads whole tables: for an operator's eyes now and then."""
    links = registry_links.join(registry_blobs, registry_blobs.c.digest == registry_links.c.digest)
    uploads = registry_uploads.join(registry_contents, registry_contents.c.id == registry_uploads.c.content_id)
    manifests, manifest_bytes = await _total(connection, registry_manifests, registry_manifests.c.size_bytes)
    blobs, blob_bytes = await _total(connection, registry_blobs, registry_blobs.c.size_bytes)
    _, visible_bytes = await _total(connection, links, registry_blobs.c.size_bytes)
    upload_count, upload_bytes = await _total(connection, uploads, registry_contents.c.size_bytes)
    size, condemned = registry_contents.c.size_bytes, registry_contents.c.condemned.is_not(None)
    return RegistryCounts(
        repositories=(await _total(connection, registry_repositories))[0],
        tags=(await _total(connection, registry_tags))[0],
        manifests=manifests,
        manifest_bytes=manifest_bytes,
        blobs=blobs,
        blob_bytes=blob_bytes,
        visible_bytes=visible_bytes,
        damaged=(await _total(connection, registry_blobs, where=registry_blobs.c.damaged.is_not(None)))[0],
        uploads=upload_count,
        upload_bytes=upload_bytes,
        condemned_bytes=(await _total(connection, registry_contents, size, where=condemned))[1],
    )


async def read_project_shares(connection: AsyncConnection, *, most: int) -> tuple[ProjectShare, ...]:
    """Return what projects have in the registry, the largest first."""
    had = (
        select(registry_repositories.c.project_id, registry_links.c.digest)
        .join(registry_links, registry_links.c.repository_id == registry_repositories.c.id)
        .distinct()
        .subquery()
    )
    bytes_of = func.sum(registry_blobs.c.size_bytes)
    query = (
        select(projects.c.id, projects.c.slug, func.count(), bytes_of)
        .select_from(
            had.join(registry_blobs, registry_blobs.c.digest == had.c.digest).join(
                projects, projects.c.id == had.c.project_id
            )
        )
        .group_by(projects.c.id, projects.c.slug)
        .order_by(bytes_of.desc(), projects.c.slug)
        .limit(most)
    )
    return tuple(
        ProjectShare(project_id=row[0], slug=row[1], blobs=int(row[2]), blob_bytes=int(row[3]))
        for row in await connection.execute(query)
    )
