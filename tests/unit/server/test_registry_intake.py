"""A body becomes parts: bounded, hashed as it goes, and what came before a break is kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from hashlib import sha256
from unittest.mock import patch

import pytest
from starlette.requests import ClientDisconnect

from metalmark.model import TooLarge
from metalmark.server.registry_intake import Intake, RunningHash
from metalmark.store import Blobs, ContentPart

pytestmark = pytest.mark.anyio
SIZES = {"PIECE_BYTES": 10, "SMALL_BYTES": 40, "PART_BYTES": 100}


async def body(*pieces: bytes, error: Exception | None = None) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
    if error is not None:
        raise error


async def taken(blobs: Blobs, source: AsyncIterator[bytes], running: RunningHash, *, limit: int) -> list[ContentPart]:
    parts: list[ContentPart] = []

    async def keep(part: ContentPart) -> None:
        parts.append(part)

    with patch.multiple("metalmark.server.registry_intake", **SIZES):
        with suppress(ClientDisconnect):
            await Intake(blobs, source, running, limit_bytes=limit).store(keep)
    return parts


@pytest.mark.parametrize("size", [0, 1, 9, 10, 39, 40, 41, 99, 100, 101, 345])
@pytest.mark.parametrize("step", [1, 7, 64])
async def test_parts_follow_each_other(size: int, step: int) -> None:
    whole = bytes(number % 251 for number in range(size))
    blobs, running = Blobs.in_memory(), RunningHash("sha256")
    pieces = [whole[start : start + step] for start in range(0, size, step)]
    parts = await taken(blobs, body(*pieces), running, limit=size)
    position = 0
    for part in parts:
        assert (part.position, 0 < part.size_bytes <= 100 + 64) == (position, True)
        assert await blobs.get(part.key) == whole[position : part.end]
        position = part.end
    assert position == running.position == size
    assert running.hasher.hexdigest() == sha256(whole).hexdigest()


async def test_what_came_before_a_break_is_a_part() -> None:
    blobs, running = Blobs.in_memory(), RunningHash("sha256")
    parts = await taken(blobs, body(b"x" * 45, b"y" * 3, error=ClientDisconnect()), running, limit=1000)
    assert [part.size_bytes for part in parts] == [48]
    assert running.position == 48


async def test_more_than_the_limit_is_refused() -> None:
    blobs, running = Blobs.in_memory(), RunningHash("sha256")
    with pytest.raises(TooLarge):
        await taken(blobs, body(b"x" * 11), running, limit=10)
    assert await blobs.below("registry") == ()


@pytest.mark.parametrize("size", [5, 15, 500])
async def test_what_keeps_a_part_ends_the_intake_with_its_own_error(size: int) -> None:
    blobs, received = Blobs.in_memory(), 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal received
        for _ in range(size):
            received += 1
            yield b"x"

    async def refuse(part: ContentPart) -> None:
        raise LookupError(part.id)

    with patch.multiple("metalmark.server.registry_intake", **SIZES), pytest.raises(LookupError):
        await Intake(blobs, endless(), RunningHash("sha256"), limit_bytes=1000).store(refuse)
    assert received <= 150, "nobody goes on to read what nobody takes"


async def test_a_source_that_fails_is_told_as_it_is() -> None:
    for before in (3, 30, 300):
        with patch.multiple("metalmark.server.registry_intake", **SIZES), pytest.raises(ZeroDivisionError):
            source = body(*[b"x"] * before, error=ZeroDivisionError())
            await Intake(Blobs.in_memory(), source, RunningHash("sha256"), limit_bytes=1000).store(ignored)


async def ignored(part: ContentPart) -> None:
    """Keep nothing."""
