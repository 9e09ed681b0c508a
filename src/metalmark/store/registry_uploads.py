"""Uploads to the registry: contents that grow, in the store so that any process of the server can go on with them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from metalmark.model import new_id
from metalmark.store.registry_contents import ContentPart, append_part, condemn_content, create_content
from metalmark.store.registry_repositories import RepositoryPlace, ensure_repository
from metalmark.store.tables import registry_contents, registry_parts, registry_repositories, registry_uploads


@dataclass(frozen=True, kw_only=True)
class UploadRecord:
    """An upload that has begun and is not over."""

    id: UUID
    repository_id: UUID
    content_id: UUID
    size_bytes: int
    """How much has arrived."""


async def start_upload(connection: AsyncConnection, place: RepositoryPlace, *, now: datetime) -> UploadRecord:
    """Begin an upload to a repository, which is made when it is not there."""
    repository_id = await ensure_repository(connection, place, now=now)
    content_id = await create_content(connection, now=now)
    upload = UploadRecord(id=new_id(), repository_id=repository_id, content_id=content_id, size_bytes=0)
    row = {"id": upload.id, "repository_id": repository_id, "content_id": content_id, "created": now, "touched": now}
    await connection.execute(insert(registry_uploads).values(**row))
    return upload


async def find_upload(connection: AsyncConnection, place: RepositoryPlace, upload_id: UUID) -> UploadRecord | None:
    """Return an upload to this very repository; None when there is none."""
    joined = registry_uploads.join(
        registry_repositories, registry_repositories.c.id == registry_uploads.c.repository_id
    ).join(registry_contents, registry_contents.c.id == registry_uploads.c.content_id)
    columns = (registry_uploads.c.id, registry_uploads.c.repository_id, registry_uploads.c.content_id)
    query = (
        select(*columns, registry_contents.c.size_bytes)
        .select_from(joined)
        .where(registry_uploads.c.id == upload_id, place.includes())
    )
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else UploadRecord(**row._mapping)  # noqa: SLF001  how SQLAlchemy spells its public mapping


async def append_to_upload(
    connection: AsyncConnection, upload: UploadRecord, part: ContentPart, *, now: datetime
) -> bool:
    """Add a part to an upload; return False when somebody else did, or it is over."""
    there = update(registry_uploads).where(registry_uploads.c.id == upload.id).values(touched=now)
    if (await connection.execute(there)).rowcount != 1:
        return False
    return await append_part(connection, content_id=upload.content_id, part=part)


async def count_parts(connection: AsyncConnection, *, content_id: UUID) -> int:
    """Return how many parts a content has."""
    query = select(func.count()).where(registry_parts.c.content_id == content_id)
    return int((await connection.execute(query)).scalar_one())


async def count_uploads(connection: AsyncConnection, *, project_id: UUID) -> int:
    """Return how many uploads to a project have begun and are not over."""
    joined = registry_uploads.join(
        registry_repositories, registry_repositories.c.id == registry_uploads.c.repository_id
    )
    query = select(func.count()).select_from(joined).where(registry_repositories.c.project_id == project_id)
    return int((await connection.execute(query)).scalar_one())


async def cancel_upload(connection: AsyncConnection, upload: UploadRecord, *, now: datetime) -> bool:
    """End an upload without a blob; return False when it was over already."""
    gone = delete(registry_uploads).where(registry_uploads.c.id == upload.id)
    if (await connection.execute(gone)).rowcount != 1:
        return False
    await condemn_content(connection, content_id=upload.content_id, now=now)
    return True


async def expire_uploads(connection: AsyncConnection, *, before: datetime, now: datetime, most: int) -> int:
    """End uploads that nothing arrived for since a time, and return how many."""
    uploads = registry_uploads
    query = select(uploads.c.id, uploads.c.content_id).where(uploads.c.touched < before).order_by(uploads.c.touched)
    rows = (await connection.execute(query.limit(most))).all()
    for row in rows:
        await connection.execute(delete(uploads).where(uploads.c.id == row.id))
        await condemn_content(connection, content_id=row.content_id, now=now)
    return len(rows)
