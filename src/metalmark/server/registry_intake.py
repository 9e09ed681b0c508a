"""A request's body on its way into parts of the storage: in bounded memory, and hashed on the way."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from metalmark.model import MIB, Hasher, TooLarge, new_id
from metalmark.store import Blobs, ContentPart, part_key
from metalmark.system import in_thread

PIECE_BYTES = MIB
"""How much is hashed and handed on at a time."""
SMALL_BYTES = 4 * MIB
"""A body up to this is written to the storage in one go."""
PART_BYTES = 256 * MIB
"""The most that one object of the storage holds, and that is lost of an upload when this process is killed."""


@dataclass
class RunningHash:
    """The digest of what has arrived of an upload so far."""

    algorithm: str
    position: int = 0
    """How many bytes it is of."""
    hasher: Hasher = field(init=False)

    def __post_init__(self) -> None:
        self.hasher = hashlib.new(self.algorithm)

    async def take(self, piece: bytes | bytearray) -> None:
        """Take in what comes next."""
        await in_thread(self.hasher.update, piece)
        self.position += len(piece)


class Intake:
    """One body.

    Args:
        blobs: The storage.
        body: The pieces of the body as they come.
        running: The hash that it goes on with.
        limit_bytes: The most that it may have.
    """

    def __init__(self, blobs: Blobs, body: AsyncIterator[bytes], running: RunningHash, *, limit_bytes: int) -> None:
        self._blobs = blobs
        self._body = body
        self._running = running
        self._position = running.position
        self._limit_bytes = limit_bytes
        self._left = limit_bytes
        self._cut: Exception | None = None

    async def parts(self) -> AsyncGenerator[ContentPart, None]:
        """Yield each part once it is in the storage to stay.

        What came before a client left, or became too slow, is kept; then its leaving is raised.

        Raises:
            TooLarge: There is more than the limit; parts that were yielded before stay.
            ClientDisconnect: The client is gone.
            HTTPException: It sent nothing in time.
            StoreUnavailable: The storage cannot take it.
        """
        pieces = self._pieces()
        try:
            while first := await _gathered(pieces, SMALL_BYTES):
                part = new_id()
                if len(first) < SMALL_BYTES:
                    size = await self._blobs.put(part_key(part), first)
                else:
                    size = await self._blobs.put(part_key(part), _up_to(first, pieces, PART_BYTES))
                yield ContentPart(id=part, position=self._position, size_bytes=size)
                self._position += size
        finally:
            await pieces.aclose()
        if self._cut is not None:
            raise self._cut

    async def _pieces(self) -> AsyncGenerator[bytearray, None]:
        pending = bytearray()
        try:
            async for chunk in self._body:
                self._left -= len(chunk)
                if self._left < 0:
                    raise TooLarge("the upload", self._limit_bytes)
                pending += chunk
                if len(pending) >= PIECE_BYTES:
                    await self._running.take(pending)
                    yield pending
                    pending = bytearray()
        except (ClientDisconnect, HTTPException) as error:
            self._cut = error
        if pending:
            await self._running.take(pending)
            yield pending


async def _gathered(pieces: AsyncIterator[bytearray], at_least: int) -> bytearray:
    gathered = bytearray()
    async for piece in pieces:
        gathered += piece
        if len(gathered) >= at_least:
            break
    return gathered


async def _up_to(first: bytearray, rest: AsyncIterator[bytearray], most: int) -> AsyncIterator[bytes]:
    yield bytes(first)
    sent = len(first)
    while sent + PIECE_BYTES <= most:
        piece = await anext(rest, None)
        if piece is None:
            return
        sent += len(piece)
        yield bytes(piece)
