"""``/v2/{name}/blobs/{digest}``: blobs of a repository."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import timedelta

import anyio
from fastapi import APIRouter, HTTPException, Request, Response
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from metalmark.model import Digest, NotFound
from metalmark.server.context import CurrentContext, ServerContext
from metalmark.server.registry_access import RepositoryRef, allowed
from metalmark.server.registry_content import byte_range, read_content
from metalmark.server.registry_desk import place_of
from metalmark.server.registry_errors import RegistryFault
from metalmark.server.registry_scope import Action
from metalmark.store import Connection, Isolation, RegistryBlob, find_parts, find_registry_blob, touch_blob, unlink_blob

router = APIRouter(include_in_schema=False)

_TYPE = "application/octet-stream"
_RENEWED_OF_LEASE = 0.25


@router.api_route("/v2/{name:path}/blobs/{digest}", methods=["GET", "HEAD"])
async def get_blob(request: Request, context: CurrentContext, name: str, digest: str) -> Response:
    """Read a blob, or a range of it."""
    ref = await allowed(request, context, name, Action.PULL)
    blob = await _blob(context, ref, _parsed(digest))
    await _renew(context, ref, blob)
    headers = {
        "Docker-Content-Digest": str(blob.digest),
        "ETag": f'"{blob.digest}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=31536000, immutable",
    }
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    wanted = None if _changed(request, headers["ETag"]) else byte_range(request.headers.get("range"), blob.size_bytes)
    start, end = wanted or (0, blob.size_bytes)
    headers["Content-Length"] = str(end - start)
    if request.method == "HEAD":
        headers["Content-Length"] = str(blob.size_bytes)
        return Response(headers=headers, media_type=_TYPE)
    if wanted is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{blob.size_bytes}"
    async with context.store.read() as connection:
        parts = await find_parts(connection, content_id=blob.content_id)
    pieces = read_content(context.blobs, parts, start=start, end=end)
    return _Blob(pieces, status=206 if wanted else 200, headers=headers)


def _parsed(text: str) -> Digest:
    if text == "uploads":
        # This path begins uploads, and is none of a blob.
        raise HTTPException(405)
    return Digest.parse(text)


def _changed(request: Request, tag: str) -> bool:
    condition = request.headers.get("if-range")
    return condition is not None and condition.strip() != tag


async def _blob(context: ServerContext, ref: RepositoryRef, digest: Digest) -> RegistryBlob:
    async with context.store.read() as connection:
        blob = await find_registry_blob(connection, place_of(ref), digest)
    if blob is None:
        raise NotFound("blob", digest)
    return blob


async def _renew(context: ServerContext, ref: RepositoryRef, blob: RegistryBlob) -> None:
    # Whoever asks may be about to push a manifest that names it, and will not upload it again.
    now = context.clock.now()
    if ref.whole_project or now - blob.touched < timedelta(seconds=context.config.registry.lease_s * _RENEWED_OF_LEASE):
        return

    async def work(connection: Connection) -> None:
        await touch_blob(connection, place_of(ref), blob.digest, now=now)

    await context.store.write(work, isolation=Isolation.READ_COMMITTED)


class _Blob(StreamingResponse):
    """A stream whose source is closed when its reader is gone."""

    def __init__(self, pieces: AsyncGenerator[bytes, None], *, status: int, headers: dict[str, str]) -> None:
        super().__init__(pieces, status_code=status, headers=headers, media_type=_TYPE)
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await self._pieces.aclose()


@router.delete("/v2/{name:path}/blobs/{digest}")
async def delete_blob(request: Request, context: CurrentContext, name: str, digest: str) -> Response:
    """Take a blob from a repository."""
    ref = await allowed(request, context, name, Action.DELETE)
    parsed = _parsed(digest)

    async def work(connection: Connection) -> str | None:
        return await unlink_blob(connection, place_of(ref), parsed)

    try:
        manifest = await context.store.write(work)
    except LookupError:
        raise NotFound("blob", digest) from None
    if manifest is not None:
        raise RegistryFault("DENIED", 405, f"the manifest {manifest} names this blob", headers={"Allow": "GET, HEAD"})
    return Response(status_code=202)
