"""``/v2/{name}/blobs/{digest}``: blobs of a repository."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, Request, Response

from metalmark.model import Digest, NotFound
from metalmark.server.context import CurrentContext, ServerContext
from metalmark.server.registry_access import RepositoryRef, allowed, reached
from metalmark.server.registry_answer import BLOB_TYPE, BlobAnswer
from metalmark.server.registry_content import byte_range
from metalmark.server.registry_damage import note_missing
from metalmark.server.registry_desk import place_of
from metalmark.server.registry_errors import RegistryFault
from metalmark.server.registry_lease import wants_renewal
from metalmark.server.registry_scope import Action
from metalmark.store import (
    Connection,
    ContentPart,
    Isolation,
    RegistryBlob,
    find_parts,
    find_registry_blob,
    touch_blob,
    unlink_blob,
)

router = APIRouter(include_in_schema=False)


@router.api_route("/v2/{name:path}/blobs/{digest}", methods=["GET", "HEAD"])
async def get_blob(request: Request, context: CurrentContext, name: str, digest: str) -> Response:
    """Read a blob, or a range of it."""
    async with reached(request, context, name, Action.PULL) as (ref, reading):
        blob, parts = await _blob(reading, ref, _parsed(digest), has_body=request.method == "GET")
    await _renew(context, ref, blob)
    headers = {
        "Docker-Content-Digest": str(blob.digest),
        "ETag": f'"{blob.digest}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=31536000, immutable",
    }
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if request.method == "HEAD":
        headers["Content-Length"] = str(blob.size_bytes)
        return Response(headers=headers, media_type=BLOB_TYPE)
    wanted = None if _changed(request, headers["ETag"]) else byte_range(request.headers.get("range"), blob.size_bytes)
    start, end = wanted or (0, blob.size_bytes)
    if wanted is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{blob.size_bytes}"
    status = 206 if wanted else 200

    async def missing() -> None:
        await note_missing(context, blob)
        # Where the bytes would be in the storage is nothing that clients need.
        raise NotFound("blob", blob.digest)

    return BlobAnswer(context.blobs, parts, start=start, end=end, status=status, headers=headers, missing=missing)


def _parsed(text: str) -> Digest:
    if text == "uploads":
        # This path begins uploads, and is none of a blob.
        raise HTTPException(405)
    return Digest.parse(text)


def _changed(request: Request, tag: str) -> bool:
    condition = request.headers.get("if-range")
    return condition is not None and condition.strip() != tag


async def _blob(
    reading: Connection, ref: RepositoryRef, digest: Digest, *, has_body: bool
) -> tuple[RegistryBlob, tuple[ContentPart, ...]]:
    blob = await find_registry_blob(reading, place_of(ref), digest)
    if blob is None:
        raise NotFound("blob", digest)
    return blob, await find_parts(reading, content_id=blob.content_id) if has_body else ()


async def _renew(context: ServerContext, ref: RepositoryRef, blob: RegistryBlob) -> None:
    # Whoever asks may be about to push a manifest that names it, and will not upload it again.
    now = context.clock.now()
    if ref.whole_project or blob.touched is None or not wants_renewal(context.config.registry, blob.touched, now):
        return

    async def work(connection: Connection) -> None:
        await touch_blob(connection, place_of(ref), blob.digest, now=now)

    await context.store.write(work, isolation=Isolation.READ_COMMITTED)


@router.delete("/v2/{name:path}/blobs/{digest}")
async def delete_blob(request: Request, context: CurrentContext, name: str, digest: str) -> Response:
    """Take a blob from a repository."""
    ref = await allowed(request, context, name, Action.DELETE)
    parsed, now = _parsed(digest), context.clock.now()

    async def work(connection: Connection) -> str | None:
        return await unlink_blob(connection, place_of(ref), parsed, now=now)

    try:
        manifest = await context.store.write(work)
    except LookupError:
        raise NotFound("blob", digest) from None
    if manifest is not None:
        raise RegistryFault("DENIED", 405, f"the manifest {manifest} names this blob", headers={"Allow": "GET, HEAD"})
    return Response(status_code=202)
