"""``/v0/updates/{checksum}``: content of published updates of the runner's program.

Whoever knows the checksum may have it: runners are told it over their channel, and public runners send no credential
when they download.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Path, Request
from starlette.responses import StreamingResponse

from metalmark.model import NotFound, TooManyRequests
from metalmark.server.caller import CurrentActor
from metalmark.server.context import CurrentContext
from metalmark.store import find_update_by_checksum

router = APIRouter(tags=["runners"])

_DOWNLOADS_AT_ONCE = 32
Checksum = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the content, lower-case hex.")]
_BYTES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
}


def _downloads(request: Request) -> anyio.CapacityLimiter:
    state = request.app.state
    if not hasattr(state, "update_downloads"):
        state.update_downloads = anyio.CapacityLimiter(_DOWNLOADS_AT_ONCE)
    limiter: anyio.CapacityLimiter = state.update_downloads
    return limiter


@router.get("/v0/updates/{checksum}", operation_id="update_get", response_class=StreamingResponse, responses=_BYTES)
async def get_update(
    request: Request, context: CurrentContext, _actor: CurrentActor, checksum: Checksum
) -> StreamingResponse:
    """Download a published update of the runner's program."""
    async with context.store.read() as connection:
        update = await find_update_by_checksum(connection, checksum)
    facts = None if update is None else await context.blobs.facts(update.key)
    if update is None or facts is None:
        raise NotFound("update", checksum)
    limiter = _downloads(request)
    if limiter.available_tokens < 1:
        raise TooManyRequests("downloads of updates", retry_after_s=10)

    async def pieces() -> AsyncIterator[bytes]:
        async with limiter:
            async for piece in context.blobs.stream(update.key):
                yield piece

    headers = {"Content-Length": str(facts.size_bytes), "ETag": f'"{checksum}"', "Cache-Control": "immutable"}
    return StreamingResponse(pieces(), media_type="application/octet-stream", headers=headers)
