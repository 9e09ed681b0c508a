"""Answers with a blob: out of memory, as files or in pieces, the same bytes each time, and an error before the head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message, Scope

from metalmark.model import NotFound, new_id
from metalmark.server import registry_answer
from metalmark.server.file_sending import ZERO_COPY
from metalmark.server.registry_answer import BlobAnswer
from metalmark.store import Blobs, ContentPart

pytestmark = pytest.mark.anyio
WHOLE = bytes(range(200)) * 3


@pytest.fixture(params=["folder", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    return Blobs.open(tmp_path) if request.param == "folder" else Blobs.in_memory()


async def stored(blobs: Blobs) -> tuple[ContentPart, ...]:
    parts, position = [], 0
    for size in (100, 1, 399, 100):
        part = ContentPart(id=new_id(), position=position, size_bytes=size)
        await blobs.put(part.key, WHOLE[position : part.end])
        parts.append(part)
        position = part.end
    return tuple(parts)


async def sent(answer: BlobAnswer, *, files: bool) -> tuple[list[Message], bytes]:
    messages: list[Message] = []
    body = b""

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        nonlocal body
        messages.append(message)
        if message["type"] == ZERO_COPY:
            message["file"].seek(message["offset"])
            body += message["file"].read(message["count"])
        else:
            body += message.get("body", b"")

    scope: Scope = {"type": "http", "asgi": {"spec_version": "2.4"}, "extensions": {ZERO_COPY: {}} if files else {}}
    await answer(scope, receive, send)
    assert messages[0]["type"] == "http.response.start"
    assert not messages[-1].get("more_body", False)
    return messages, body


class Told:
    """Counts how often it was told that bytes are missing."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self) -> None:
        self.count += 1


def answer_of(
    blobs: Blobs, parts: tuple[ContentPart, ...], start: int, end: int, missing: Told | None = None
) -> BlobAnswer:
    told = missing or Told()
    return BlobAnswer(blobs, parts, start=start, end=end, status=206, headers={"ETag": "x"}, missing=told)


@pytest.mark.parametrize("files", [True, False])
@pytest.mark.parametrize("small", [0, 10_000])
@pytest.mark.parametrize(("start", "end"), [(0, 600), (99, 102), (100, 101), (50, 599), (500, 600)])
async def test_every_way_sends_the_same(
    blobs: Blobs, start: int, end: int, *, files: bool, small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_answer, "_SMALL_BYTES", small)
    messages, body = await sent(answer_of(blobs, await stored(blobs), start, end), files=files)
    assert body == WHOLE[start:end]
    assert messages[0]["status"] == 206
    headers = dict(messages[0]["headers"])
    assert headers[b"content-length"] == str(end - start).encode()
    assert (headers[b"etag"], headers[b"content-type"]) == (b"x", b"application/octet-stream")


async def test_files_are_sent_only_where_there_are_some_and_the_connection_takes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_answer, "_SMALL_BYTES", 0)
    kinds: dict[Any, set[str]] = {}
    for name, blobs in (("folder", Blobs.open(tmp_path)), ("memory", Blobs.in_memory())):
        for files in (True, False):
            messages, _ = await sent(answer_of(blobs, await stored(blobs), 0, 600), files=files)
            kinds[name, files] = {message["type"] for message in messages[1:-1]}
    assert kinds["folder", True] == {ZERO_COPY}
    assert ZERO_COPY not in kinds["folder", False] | kinds["memory", True] | kinds["memory", False]


async def test_nothing_is_sent_of_an_empty_blob(blobs: Blobs) -> None:
    _, body = await sent(answer_of(blobs, (), 0, 0), files=True)
    assert body == b""


@pytest.mark.parametrize("files", [True, False])
@pytest.mark.parametrize("small", [0, 10_000])
async def test_a_missing_part_is_told_instead_of_the_head(
    blobs: Blobs, *, files: bool, small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_answer, "_SMALL_BYTES", small)
    parts = await stored(blobs)
    await blobs.delete(parts[0].key)
    told = Told()
    with pytest.raises(NotFound):
        await sent(answer_of(blobs, parts, 0, 600, told), files=files)
    assert told.count == 1
    # What is there can be read, and nothing is told.
    await sent(answer_of(blobs, parts, 100, 600, told), files=files)
    assert told.count == 1


@pytest.mark.parametrize("files", [True, False])
async def test_a_later_part_that_is_missing_is_told_too(
    tmp_path: Path, *, files: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_answer, "_SMALL_BYTES", 0)
    blobs = Blobs.open(tmp_path)
    parts = await stored(blobs)
    await blobs.put(parts[2].key, b"short")
    told = Told()
    with pytest.raises(NotFound):
        await sent(answer_of(blobs, parts, 0, 600, told), files=files)
    assert told.count == 1


@pytest.mark.parametrize("small", [0, 10_000])
async def test_a_part_that_was_cut_short_is_told_instead_of_the_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    monkeypatch.setattr(registry_answer, "_SMALL_BYTES", small)
    blobs = Blobs.open(tmp_path)
    parts = await stored(blobs)
    await blobs.put(parts[0].key, b"short")
    with pytest.raises(NotFound):
        await sent(answer_of(blobs, parts, 0, 100), files=True)
