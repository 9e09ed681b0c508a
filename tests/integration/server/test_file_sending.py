"""Files that the kernel sends: whole, in their place between other bytes, to slow readers, not to who has left."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from tests.integration.server.bounded_connection import connected, rest

from metalmark.server.file_sending import ZERO_COPY, sends_files

pytestmark = pytest.mark.anyio
_GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
_LAST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
MIB = 1024 * 1024


class Files:
    """An application that answers with a word, ranges of a file, and another word."""

    def __init__(self, path: Path, ranges: Sequence[tuple[int, int]]) -> None:
        self._path = path
        self._ranges = ranges
        self.ended = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert sends_files(scope)
        size = sum(count for _, count in self._ranges) + 6
        headers = [(b"content-length", str(size).encode())]
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"one", "more_body": True})
            with self._path.open("rb") as file:
                for offset, count in self._ranges:
                    message = {"file": file, "offset": offset, "count": count, "more_body": True}
                    await send({"type": ZERO_COPY, **message})
            await send({"type": "http.response.body", "body": b"two"})
        finally:
            self.ended += 1

    def body(self) -> bytes:
        content = self._path.read_bytes()
        return b"one" + b"".join(content[offset : offset + count] for offset, count in self._ranges) + b"two"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(9 * MIB))
    return path


def handles() -> set[str]:
    """What this process has open."""
    found = set()
    for handle in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(f"{handle.name} {handle.readlink()}")
    return found


async def answer(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    (length,) = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    return await reader.readexactly(int(length.partition(b":")[2]))


async def test_ranges_stand_where_they_belong_and_the_connection_goes_on(file: Path) -> None:
    app = Files(file, [(5, 10), (0, 9 * MIB), (MIB, 1)])
    async with connected(app) as (reader, writer):
        for _ in range(3):
            writer.write(_GET)
            assert await answer(reader) == app.body()


async def test_requests_that_come_early_are_answered_in_their_order(file: Path) -> None:
    app = Files(file, [(0, 2 * MIB)])
    async with connected(app) as (reader, writer):
        writer.write(_GET * 3 + _LAST)
        for _ in range(4):
            assert await answer(reader) == app.body()
        assert await rest(reader) == b""


async def test_a_slow_reader_gets_all_of_it(file: Path) -> None:
    app = Files(file, [(1, 9 * MIB - 1)])
    async with connected(app, write_timeout_s=20) as (reader, writer):
        writer.write(_LAST)
        await reader.readuntil(b"\r\n\r\n")
        found = bytearray()
        while piece := await reader.read(256 * 1024):
            found += piece
            await anyio.sleep(0.005)
        assert bytes(found) == app.body()


async def test_who_does_not_read_is_cut_and_nothing_stays_open(file: Path) -> None:
    app, before = Files(file, [(0, 9 * MIB), (0, 9 * MIB), (0, 9 * MIB)]), handles()
    async with connected(app, write_timeout_s=0.2) as (reader, writer):
        writer.write(_LAST)
        while not app.ended:
            await anyio.sleep(0.01)
        assert len(await rest(reader)) < len(app.body())
    assert not {name for name in handles() - before if str(file) in name}


async def test_who_leaves_in_the_middle_costs_nothing_more(file: Path) -> None:
    app = Files(file, [(0, 9 * MIB)] * 8)
    async with connected(app, write_timeout_s=60) as (reader, writer):
        writer.write(_LAST)
        await reader.readexactly(10_000)
        writer.transport.abort()
        while not app.ended:
            await anyio.sleep(0.01)
    assert not {name for name in handles() if str(file) in name}


async def test_a_file_that_is_shorter_than_announced_breaks_the_answer_off(file: Path) -> None:
    app = Files(file, [(8 * MIB, 2 * MIB)])
    async with connected(app, write_timeout_s=60) as (reader, writer):
        writer.write(_LAST)
        found = await rest(reader)
        assert app.ended == 1
    assert MIB <= len(found) < 2 * MIB
    assert not found.endswith(b"two")
