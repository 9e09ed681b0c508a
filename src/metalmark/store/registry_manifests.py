"""Manifests and tags of the registry. A manifest is kept byte for byte, with what it names beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from metalmark.model import Digest
from metalmark.store.registry_blobs import blob_sizes, renew_named
from metalmark.store.registry_repositories import (
    RepositoryPlace,
    ensure_repository,
    find_repository_id,
    insert_or_change,
    insert_unless_there,
)
from metalmark.store.tables import (
    registry_manifest_blobs,
    registry_manifest_children,
    registry_manifests,
    registry_repositories,
    registry_tags,
)

_AT_ONCE = 500


@dataclass(frozen=True, kw_only=True)
class NewManifest:
    """A manifest that is pushed, as far as its document was understood."""

    digest: Digest
    media_type: str
    content: bytes
    blobs: Mapping[str, int] = field(default_factory=dict)
    """Sizes of the blobs that it names and needs, by digest."""
    children: Mapping[str, int] = field(default_factory=dict)
    """Sizes of the manifests that it names, by digest."""
    subject: str | None = None
    artifact_type: str | None = None
    annotations: Mapping[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class ManifestRecord:
    """A manifest."""

    digest: Digest
    media_type: str
    content: bytes
    touched: datetime
    """When somebody last asked for it who may push an index of it, or a tag."""


@dataclass(frozen=True, kw_only=True)
class Lacking:
    """What stands against a manifest: it was not stored."""

    blobs: tuple[str, ...] = ()
    """Digests of blobs that are not in its repository."""
    manifests: tuple[str, ...] = ()
    """Digests of manifests that are not there."""
    other_sizes: tuple[str, ...] = ()
    """Digests of what has another size than it says."""


@dataclass(frozen=True, kw_only=True)
class TagRecord:
    """A tag."""

    tag: str
    digest: Digest
    media_type: str
    size_bytes: int
    """Of the manifest's document."""
    pushed: datetime


@dataclass(frozen=True, kw_only=True)
class ReferrerRecord:
    """A manifest whose subject is another one."""

    digest: Digest
    media_type: str
    size_bytes: int
    artifact_type: str | None
    annotations: Mapping[str, str] | None


async def put_manifest(
    connection: AsyncConnection,
    place: RepositoryPlace,
    new: NewManifest,
    *,
    tag: str | None,
    sparse: bool,
    now: datetime,
) -> Lacking | None:
    """Store a manifest, and set a tag to it.

    Args:
        connection: Of a write.
        place: The repository.
        new: The manifest.
        tag: What it is called; None for no name but its digest.
        sparse: Whether an index may name manifests that are not there.
        now: The time of day.

    Returns:
        None once it is there, or what it lacks.
    """
    repository_id = await ensure_repository(connection, place, now=now)
    lacking = await _lacking(connection, repository_id, new, sparse=sparse)
    if lacking is not None:
        return lacking
    row = {
        "repository_id": repository_id,
        "digest": str(new.digest),
        "media_type": new.media_type,
        "content": new.content,
        "size_bytes": len(new.content),
        "subject": new.subject,
        "artifact_type": new.artifact_type,
        "annotations": None if new.annotations is None else dict(new.annotations),
        "created": now,
        "touched": now,
    }
    await insert_or_change(connection, registry_manifests, ("repository_id", "digest"), row, kept=("created",))
    for table, named in ((registry_manifest_blobs, new.blobs), (registry_manifest_children, new.children)):
        own = {"repository_id": repository_id, "manifest": str(new.digest)}
        await insert_unless_there(connection, table, *(own | {"digest": digest} for digest in named))
    if tag is not None:
        named_row = {"repository_id": repository_id, "tag": tag, "folded": tag.lower()}
        changed = {"digest": str(new.digest), "pushed": now}
        await insert_or_change(connection, registry_tags, ("repository_id", "tag"), named_row | changed)
    return None


async def _lacking(
    connection: AsyncConnection, repository_id: UUID, new: NewManifest, *, sparse: bool
) -> Lacking | None:
    blobs = await blob_sizes(connection, repository_id=repository_id, digests=list(new.blobs))
    children = await _manifest_sizes(connection, repository_id, list(new.children))
    lacking = Lacking(
        blobs=tuple(digest for digest in new.blobs if digest not in blobs),
        manifests=() if sparse else tuple(digest for digest in new.children if digest not in children),
        other_sizes=_other_sizes(new.blobs, blobs) + _other_sizes(new.children, children),
    )
    return lacking if lacking.blobs or lacking.manifests or lacking.other_sizes else None


def _other_sizes(said: Mapping[str, int], found: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(digest for digest, size in said.items() if found.get(digest, size) != size)


async def _manifest_sizes(connection: AsyncConnection, repository_id: UUID, digests: Sequence[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    manifests = registry_manifests
    for start in range(0, len(digests), _AT_ONCE):
        query = select(manifests.c.digest, manifests.c.size_bytes).where(
            manifests.c.repository_id == repository_id, manifests.c.digest.in_(digests[start : start + _AT_ONCE])
        )
        found |= {row.digest: row.size_bytes for row in await connection.execute(query)}
    return found


async def find_manifest_digest(
    connection: AsyncConnection, place: RepositoryPlace, reference: Digest | str
) -> Digest | None:
    """Return the digest of the manifest that a tag or digest stands for; None when there is none."""
    if isinstance(reference, Digest):
        columns, condition = registry_manifests, registry_manifests.c.digest == str(reference)
    else:
        # A tag means something in one repository only.
        place = RepositoryPlace(project_id=place.project_id, inner=place.inner)
        columns, condition = registry_tags, registry_tags.c.tag == reference
    joined = columns.join(registry_repositories, registry_repositories.c.id == columns.c.repository_id)
    query = select(columns.c.digest).select_from(joined).where(condition, place.includes()).limit(1)
    found = (await connection.execute(query)).scalar_one_or_none()
    return None if found is None else Digest.parse(found)


async def find_manifest(
    connection: AsyncConnection, place: RepositoryPlace, reference: Digest | str
) -> ManifestRecord | None:
    """Return the manifest that a tag or digest stands for; None when there is none."""
    manifests, tags, repositories = registry_manifests, registry_tags, registry_repositories
    joined = manifests.join(repositories, repositories.c.id == manifests.c.repository_id)
    condition = manifests.c.digest == str(reference)
    if not isinstance(reference, Digest):
        # A tag means something in one repository only.
        place = RepositoryPlace(project_id=place.project_id, inner=place.inner)
        same = and_(tags.c.repository_id == manifests.c.repository_id, tags.c.digest == manifests.c.digest)
        joined, condition = joined.join(tags, same), tags.c.tag == reference
    columns = (manifests.c.digest, manifests.c.media_type, manifests.c.content, manifests.c.touched)
    query = select(*columns).select_from(joined).where(condition, place.includes()).limit(1)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        return None
    digest = Digest.parse(row.digest)
    return ManifestRecord(digest=digest, media_type=row.media_type, content=row.content, touched=row.touched)


async def touch_manifest(connection: AsyncConnection, place: RepositoryPlace, digest: Digest, *, now: datetime) -> None:
    """Renew the lease of a manifest in a repository."""
    repository_id = await find_repository_id(connection, place)
    this = and_(registry_manifests.c.repository_id == repository_id, registry_manifests.c.digest == str(digest))
    await connection.execute(update(registry_manifests).where(this).values(touched=now))


async def delete_manifest(
    connection: AsyncConnection, place: RepositoryPlace, digest: Digest, *, now: datetime
) -> str | None:
    """Delete a manifest with all tags of it, unless an index names it.

    Returns:
        Digest of such an index; None when the manifest is gone.

    Raises:
        LookupError: It is not there.
    """
    repository_id = await find_repository_id(connection, place)
    children = registry_manifest_children
    by = select(children.c.manifest).where(children.c.repository_id == repository_id, children.c.digest == str(digest))
    index = (await connection.execute(by.limit(1))).scalar_one_or_none()
    if index is not None:
        return str(index)
    named, manifests = registry_manifest_blobs, registry_manifests
    naming = and_(named.c.repository_id == repository_id, named.c.manifest == str(digest))
    await renew_named(connection, naming, now=now)
    this = and_(manifests.c.repository_id == repository_id, manifests.c.digest == str(digest))
    if (await connection.execute(delete(manifests).where(this))).rowcount != 1:
        raise LookupError(digest)
    return None


async def delete_tag(connection: AsyncConnection, place: RepositoryPlace, tag: str) -> bool:
    """Delete a tag, and not what it stands for; return whether it was there."""
    repository_id = await find_repository_id(connection, place)
    this = and_(registry_tags.c.repository_id == repository_id, registry_tags.c.tag == tag)
    return (await connection.execute(delete(registry_tags).where(this))).rowcount == 1


async def list_tags(
    connection: AsyncConnection, place: RepositoryPlace, *, after: str | None = None, limit: int
) -> tuple[TagRecord, ...]:
    """Return tags of a repository in their order: by letters whatever their case, then by code point.

    Args:
        connection: A connection.
        place: The repository.
        after: A tag, whether it is there or not: those that come after it.
        limit: How many at most.
    """
    tags, manifests = registry_tags, registry_manifests
    same = and_(manifests.c.repository_id == tags.c.repository_id, manifests.c.digest == tags.c.digest)
    columns = (tags.c.tag, tags.c.digest, tags.c.pushed, manifests.c.media_type, manifests.c.size_bytes)
    # Not joined: so an index gives a page in its order, however many tags there are.
    repository_id = await find_repository_id(connection, place)
    query = select(*columns).select_from(tags.join(manifests, same)).where(tags.c.repository_id == repository_id)
    if after is not None:
        query = query.where(_comes_after(after))
    rows = await connection.execute(query.order_by(tags.c.folded, tags.c.tag).limit(limit))
    return tuple(
        TagRecord(
            tag=row.tag,
            digest=Digest.parse(row.digest),
            media_type=row.media_type,
            size_bytes=row.size_bytes,
            pushed=row.pushed,
        )
        for row in rows
    )


def _comes_after(tag: str) -> ColumnElement[bool]:
    folded = registry_tags.c.folded
    return or_(folded > tag.lower(), and_(folded == tag.lower(), registry_tags.c.tag > tag))


async def list_referrers(
    connection: AsyncConnection,
    place: RepositoryPlace,
    subject: Digest,
    *,
    artifact_type: str | None = None,
    after: str = "",
    limit: int,
) -> tuple[ReferrerRecord, ...]:
    """Return manifests of a repository whose subject is a digest, be that there or not, by their digests.

    Args:
        connection: A connection.
        place: The repository.
        subject: What they refer to.
        artifact_type: Only those of this type; None for all.
        after: A digest: those that come after it.
        limit: How many at most.
    """
    manifests = registry_manifests
    joined = manifests.join(registry_repositories, registry_repositories.c.id == manifests.c.repository_id)
    conditions: list[Any] = [manifests.c.subject == str(subject), manifests.c.digest > after, place.includes()]
    if artifact_type is not None:
        conditions.append(manifests.c.artifact_type == artifact_type)
    columns = (manifests.c.digest, manifests.c.media_type, manifests.c.size_bytes, manifests.c.artifact_type)
    query = select(*columns, manifests.c.annotations).select_from(joined).where(*conditions)
    rows = await connection.execute(query.order_by(manifests.c.digest).limit(limit))
    return tuple(
        ReferrerRecord(
            digest=Digest.parse(row.digest),
            media_type=row.media_type,
            size_bytes=row.size_bytes,
            artifact_type=row.artifact_type,
            annotations=row.annotations,
        )
        for row in rows
    )
