"""A request's body on its way into parts of the storage: in bounded memory, and hashed on the way."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import anyio

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

    While some of it is hashed and written, more of it is received.

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

    async def store(self, keep: Callable[[ContentPart], Awaitable[None]]) -> None:
        """Put the body into the storage. What came before a client left, or became too slow, is kept.

        Args:
            keep: Called with each part once it is in the storage to stay. What it raises ends this.

        Raises:
            TooLarge: There is more than the limit; parts that were kept before stay.
            ClientDisconnect: The client is gone.
            HTTPException: It sent nothing in time.
            StoreUnavailable: The storage cannot take it.
        """
        first = await self._received()
        if len(first) < PIECE_BYTES:
            await self._store(_only(first), keep)
        else:
            await self._store_meanwhile(first, keep)
        if self._cut is not None:
            raise self._cut

    async def _store_meanwhile(self, first: bytearray, keep: Callable[[ContentPart], Awaitable[None]]) -> None:
        sending, receiving = anyio.create_memory_object_stream[bytearray](1)
        failure = None

        async def receive() -> None:
            with sending:
                piece = first
                while piece:
                    await sending.send(piece)
                    piece = await self._received()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            with receiving:
                try:
                    await self._store(receiving, keep)
                except Exception as error:  # noqa: BLE001 - raised again below, as itself and not as a group of one
                    failure = error
                    tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _store(self, pieces: AsyncIterator[bytearray], keep: Callable[[ContentPart], Awaitable[None]]) -> None:
        hashed = self._hashed(pieces)
        try:
            while first := await _gathered(hashed, SMALL_BYTES):
                part = new_id()
                data = first if len(first) < SMALL_BYTES else _up_to(first, hashed, PART_BYTES)
                size = await self._blobs.put(part_key(part), data)
                await keep(ContentPart(id=part, position=self._position, size_bytes=size))
                self._position += size
        finally:
            await hashed.aclose()

    async def _hashed(self, pieces: AsyncIterator[bytearray]) -> AsyncGenerator[bytearray, None]:
        async for piece in pieces:
            await self._running.take(piece)
            yield piece

    async def _received(self) -> bytearray:
        """Return what comes next, `PIECE_BYTES` and a little more unless that is the end."""
        piece = bytearray()
        while len(piece) < PIECE_BYTES and (chunk := await self._chunk()) is not None:
            piece += chunk
        return piece

    async def _chunk(self) -> bytes | None:
        if self._cut is not None:
            return None
        try:
            chunk = await anext(self._body, None)
        except Exception as error:  # noqa: BLE001 - raised when what came before it is kept
            self._cut = error
            return None
        self._left -= len(chunk or b"")
        if self._left < 0:
            self._cut = TooLarge("the upload", self._limit_bytes)
            return None
        return chunk


async def _only(piece: bytearray) -> AsyncGenerator[bytearray, None]:
    if piece:
        yield piece


async def _gathered(pieces: AsyncIterator[bytearray], at_least: int) -> bytearray:
    gathered = bytearray()
    async for piece in pieces:
        gathered += piece
        if len(gathered) >= at_least:
            break
    return gathered


async def _up_to(first: bytearray, rest: AsyncIterator[bytearray], most: int) -> AsyncIterator[bytearray]:
    yield first
    sent = len(first)
    while sent + PIECE_BYTES <= most:
        piece = await anext(rest, None)
        if piece is None:
            return
        sent += len(piece)
        yield piece
