"""Blobs of the registry: each digest once, visible in the repositories that it was pushed to or mounted in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, delete, exists, func, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from metalmark.model import Digest
from metalmark.store.registry_contents import condemn_content
from metalmark.store.registry_repositories import (
    RepositoryPlace,
    ensure_repository,
    find_repository_id,
    insert_if_new,
    insert_or_change,
)
from metalmark.store.registry_uploads import UploadRecord
from metalmark.store.tables import (
    registry_blobs,
    registry_contents,
    registry_links,
    registry_manifest_blobs,
    registry_manifests,
    registry_repositories,
    registry_uploads,
)

_AT_ONCE = 500


@dataclass(frozen=True, kw_only=True)
class RegistryBlob:
    """A blob."""

    digest: Digest
    size_bytes: int
    content_id: UUID
    touched: datetime | None
    """When somebody last asked for it who may push a manifest of it; None while a manifest there names it."""


async def find_registry_blob(
    connection: AsyncConnection, place: RepositoryPlace, digest: Digest
) -> RegistryBlob | None:
    """Return a blob that is visible in a place; None when it is not, or is known to be damaged."""
    blobs, links, repositories = registry_blobs, registry_links, registry_repositories
    joined = blobs.join(links, links.c.digest == blobs.c.digest).join(
        repositories, repositories.c.id == links.c.repository_id
    )
    query = (
        select(blobs.c.size_bytes, blobs.c.content_id, links.c.touched)
        .select_from(joined)
        .where(blobs.c.digest == str(digest), place.includes(), blobs.c.damaged.is_(None))
        .limit(1)
    )
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        return None
    return RegistryBlob(digest=digest, size_bytes=row.size_bytes, content_id=row.content_id, touched=row.touched)


async def publish_blob(
    connection: AsyncConnection,
    place: RepositoryPlace,
    digest: Digest,
    *,
    content_id: UUID,
    size_bytes: int,
    upload: UploadRecord | None = None,
    now: datetime,
) -> bool:
    """Make a blob of a content whose digest was checked, and visible in a repository.

    Args:
        connection: Of a write.
        place: The repository; it is made when it is not there.
        digest: What was checked.
        content_id: The content. It is condemned when a sound one of this digest is there.
        size_bytes: How much of it was checked, which is all of it.
        upload: The upload that ends with this.
        now: The time of day.

    Returns:
        Whether the content is the blob's now.

    Raises:
        LookupError: The upload is not what was checked any more: somebody else ended it, or went on with it.
    """
    if upload is None:
        repository_id = await ensure_repository(connection, place, now=now)
    else:
        await _end(connection, upload, size_bytes)
        repository_id = upload.repository_id
    taken = await _become(connection, digest, content_id=content_id, size_bytes=size_bytes, now=now)
    await _link(connection, repository_id, digest, now=now)
    return taken


async def _end(connection: AsyncConnection, upload: UploadRecord, size_bytes: int) -> None:
    contents, uploads = registry_contents, registry_uploads
    # What came after the digest was taken must not become the blob's: others would be given it as theirs.
    as_checked = exists().where(contents.c.id == uploads.c.content_id, contents.c.size_bytes == size_bytes)
    gone = delete(uploads).where(uploads.c.id == upload.id, as_checked)
    if (await connection.execute(gone)).rowcount != 1:
        raise LookupError(upload.id)


async def _become(
    connection: AsyncConnection, digest: Digest, *, content_id: UUID, size_bytes: int, now: datetime
) -> bool:
    new = {"digest": str(digest), "size_bytes": size_bytes, "created": now, "content_id": content_id}
    if await insert_if_new(connection, registry_blobs, new):
        return True
    there = registry_blobs.c.digest == str(digest)
    columns = (registry_blobs.c.content_id, registry_blobs.c.damaged)
    row = (await connection.execute(select(*columns).where(there))).one()
    if row.damaged is None:
        assert row.content_id != content_id, "a content is published once"
        await condemn_content(connection, content_id=content_id, now=now)
        return False
    await connection.execute(update(registry_blobs).where(there).values(content_id=content_id, damaged=None))
    await condemn_content(connection, content_id=row.content_id, now=now)
    return True


async def mount_blob(
    connection: AsyncConnection, source: RepositoryPlace, target: RepositoryPlace, digest: Digest, *, now: datetime
) -> bool:
    """Make a blob of one place visible in another repository; return False when it is not visible in the first."""
    if await find_registry_blob(connection, source, digest) is None:
        return False
    await _link(connection, await ensure_repository(connection, target, now=now), digest, now=now)
    return True


async def _link(connection: AsyncConnection, repository_id: UUID, digest: Digest, *, now: datetime) -> None:
    row = {"repository_id": repository_id, "digest": str(digest), "created": now, "touched": now}
    await insert_or_change(connection, registry_links, ("repository_id", "digest"), row, kept=("created",))


async def touch_blob(connection: AsyncConnection, place: RepositoryPlace, digest: Digest, *, now: datetime) -> None:
    """Renew the lease of a blob in a repository."""
    repository_id = await find_repository_id(connection, place)
    linked = and_(registry_links.c.repository_id == repository_id, registry_links.c.digest == str(digest))
    await connection.execute(update(registry_links).where(linked).values(touched=now))


async def unlink_blob(
    connection: AsyncConnection, place: RepositoryPlace, digest: Digest, *, now: datetime
) -> str | None:
    """Take a blob from a repository, unless a manifest there names it.

    Returns:
        Digest of such a manifest; None when the blob is gone.

    Raises:
        LookupError: It is not there.
    """
    repository_id = await find_repository_id(connection, place)
    named = registry_manifest_blobs
    by = select(named.c.manifest).where(named.c.repository_id == repository_id, named.c.digest == str(digest))
    manifest = (await connection.execute(by.limit(1))).scalar_one_or_none()
    if manifest is not None:
        return str(manifest)
    linked = and_(registry_links.c.repository_id == repository_id, registry_links.c.digest == str(digest))
    if (await connection.execute(delete(registry_links).where(linked))).rowcount != 1:
        raise LookupError(digest)
    await loosen_blobs(connection, registry_blobs.c.digest == str(digest), now=now)
    return None


async def loosen_blobs(connection: AsyncConnection, which: ColumnElement[bool], *, now: datetime) -> None:
    """Note of blobs that they were taken from a repository: it may have been the last one.

    Args:
        connection: Of the write that takes them.
        which: A condition on `registry_blobs`.
        now: The time of day.
    """
    await connection.execute(update(registry_blobs).where(which, registry_blobs.c.loose.is_(None)).values(loose=now))


async def renew_named(connection: AsyncConnection, which: ColumnElement[bool], *, now: datetime) -> None:
    """Begin the leases of blobs anew that manifests name which are about to be deleted.

    Args:
        connection: Of the write that deletes them.
        which: A condition on `registry_manifest_blobs`.
        now: The time of day.
    """
    links, named = registry_links, registry_manifest_blobs
    freed = select(named.c.repository_id, named.c.digest).where(which)
    these = tuple_(links.c.repository_id, links.c.digest).in_(freed)
    await connection.execute(update(links).where(these, links.c.touched.is_(None)).values(touched=now))


async def blob_sizes(connection: AsyncConnection, *, repository_id: UUID, digests: Sequence[str]) -> Mapping[str, int]:
    """Return the sizes of those blobs that are sound and visible in a repository."""
    found: dict[str, int] = {}
    joined = registry_links.join(registry_blobs, registry_blobs.c.digest == registry_links.c.digest)
    for start in range(0, len(digests), _AT_ONCE):
        query = (
            select(registry_blobs.c.digest, registry_blobs.c.size_bytes)
            .select_from(joined)
            .where(
                registry_links.c.repository_id == repository_id,
                registry_links.c.digest.in_(digests[start : start + _AT_ONCE]),
                registry_blobs.c.damaged.is_(None),
            )
        )
        found |= {row.digest: row.size_bytes for row in await connection.execute(query)}
    return found


async def registry_bytes(connection: AsyncConnection, *, project_id: UUID) -> int:
    """Return what a project takes of the registry: each of its blobs once, its manifests, uploads that go on."""
    of_project = registry_repositories.c.project_id == project_id
    ids = select(registry_repositories.c.id).where(of_project)
    # From the project's links to their blobs: there are many more blobs than a project has.
    linked = registry_blobs.c.digest.in_(select(registry_links.c.digest).where(registry_links.c.repository_id.in_(ids)))
    uploads = registry_uploads.join(registry_contents, registry_contents.c.id == registry_uploads.c.content_id)
    sums: list[Any] = [
        select(func.sum(registry_blobs.c.size_bytes)).where(linked),
        select(func.sum(registry_manifests.c.size_bytes)).where(registry_manifests.c.repository_id.in_(ids)),
        select(func.sum(registry_contents.c.size_bytes))
        .select_from(uploads)
        .where(registry_uploads.c.repository_id.in_(ids)),
    ]
    return sum([int((await connection.execute(query)).scalar_one() or 0) for query in sums])


@dataclass(frozen=True, kw_only=True)
class Swept:
    """What a step of a collection has done."""

    seen: int
    """Rows that it looked at; none of them will be looked at again until something changes."""
    gone: int
    """Those that went."""


async def unlink_unused(connection: AsyncConnection, *, before: datetime, now: datetime, most: int) -> Swept:
    """Look at blobs whose leases are over: they leave their repository, unless a manifest there names them.

    Args:
        connection: Of a write.
        before: When those leases were last renewed at the latest.
        now: The time of day.
        most: How many to look at.
    """
    links, named = registry_links, registry_manifest_blobs
    naming = exists().where(named.c.repository_id == links.c.repository_id, named.c.digest == links.c.digest)
    columns = (links.c.repository_id, links.c.digest, naming.label("is_named"))
    query = select(*columns).where(links.c.touched < before).order_by(links.c.touched).limit(most)
    rows = (await connection.execute(query)).all()
    unused = [row for row in rows if not row.is_named]
    for row in rows:
        one = and_(links.c.repository_id == row.repository_id, links.c.digest == row.digest)
        if row.is_named:
            await connection.execute(update(links).where(one).values(touched=None))
        else:
            await connection.execute(delete(links).where(one))
            await loosen_blobs(connection, registry_blobs.c.digest == row.digest, now=now)
    return Swept(seen=len(rows), gone=len(unused))


async def drop_unlinked(connection: AsyncConnection, *, now: datetime, most: int) -> Swept:
    """Look at blobs that were taken from a repository: those in no other are forgotten, their contents condemned."""
    blobs = registry_blobs
    linked = exists().where(registry_links.c.digest == blobs.c.digest).label("is_linked")
    query = select(blobs.c.digest, blobs.c.content_id, linked).where(blobs.c.loose.is_not(None))
    rows = (await connection.execute(query.order_by(blobs.c.loose).limit(most))).all()
    nowhere = [row for row in rows if not row.is_linked]
    for row in rows:
        this = blobs.c.digest == row.digest
        if row.is_linked:
            await connection.execute(update(blobs).where(this).values(loose=None))
        else:
            await connection.execute(delete(blobs).where(this))
            await condemn_content(connection, content_id=row.content_id, now=now)
    return Swept(seen=len(rows), gone=len(nowhere))
