"""What the storage of a running server has of images, and how tests spoil it."""

from __future__ import annotations

from metalmark.model import Digest
from metalmark.server import Scrub, Scrubbed, ServerContext
from metalmark.store import REGISTRY_PREFIX, find_parts, stored_blobs
from metalmark.testing.running_server import RunningServer


def scrubbed(server: RunningServer) -> Scrubbed:
    async def run(context: ServerContext) -> Scrubbed:
        return await Scrub(context.store, context.blobs, context.clock).run()

    return server.call(run)


def stored_keys(server: RunningServer) -> set[str]:
    async def read(context: ServerContext) -> set[str]:
        return {found.key for found in await context.blobs.below(REGISTRY_PREFIX)}

    return server.call(read)


def keys_of(server: RunningServer, digest: Digest) -> list[str]:
    async def read(context: ServerContext) -> list[str]:
        async with context.store.read() as connection:
            (blob,) = [each for each in await stored_blobs(connection, after=None, limit=1000) if each.digest == digest]
            return [part.key for part in await find_parts(connection, content_id=blob.content_id)]

    return server.call(read)


def overwrite(server: RunningServer, key: str, content: bytes | None) -> None:
    async def spoil(context: ServerContext) -> None:
        if content is None:
            await context.blobs.delete(key)
        else:
            await context.blobs.put(key, content)

    server.call(spoil)
