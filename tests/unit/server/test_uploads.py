"""Uploads of output in pieces, against blobs in memory."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect

from metalmark.model import Conflict, InputError, StoreAway, TooLarge
from metalmark.server import uploads as module
from metalmark.server.uploads import Upload, take_in, uploaded_bytes
from metalmark.store import Blobs

JOB: Any = SimpleNamespace(project="p", id="j", lease=1, output_key=None)


def upload_of(content: bytes) -> Upload:
    return Upload(job=JOB, checksum=hashlib.sha256(content).hexdigest(), size_bytes=len(content))


async def body(*pieces: bytes, broken: Exception | None = None) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
    if broken is not None:
        raise broken


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=40), st.booleans()), min_size=1, max_size=8))
@settings(deadline=None, max_examples=25)
def test_however_it_is_cut_the_whole_arrives(pieces: list[tuple[bytes, bool]]) -> None:
    content = b"".join(piece for piece, _ in pieces)
    upload = upload_of(content)

    async def main() -> None:
        blobs = Blobs.in_memory()
        for piece, breaks in pieces:
            offset = await uploaded_bytes(blobs, upload)
            try:
                await take_in(blobs, upload, offset, body(piece, broken=ClientDisconnect() if breaks else None))
            except ClientDisconnect:
                assert breaks
        if await blobs.facts(upload.key) is None:
            # The last piece came with a connection that broke: asking again for nothing more ends the upload.
            await take_in(blobs, upload, len(content), body())
        assert await blobs.get(upload.key) == content
        assert await blobs.below(upload.folder) == ()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PART_BYTES", 16)
        anyio.run(main)


def test_a_lease_keeps_one_upload_and_leaves_those_of_others_alone() -> None:
    async def main() -> None:
        blobs = Blobs.in_memory()
        for number in range(3):
            content = b"whole %d" % number
            await take_in(blobs, upload_of(content), 0, body(content))
        kept: Any = SimpleNamespace(**{**vars(JOB), "output_key": upload_of(content).key})
        later: Any = SimpleNamespace(**{**vars(JOB), "lease": 11})
        await blobs.put("outputs/p/j2/1-other.json", b"of another job")
        for number in range(3):
            begun = b"begun %d" % number
            for job, length in ((later, 4), (kept, 2)):
                upload = Upload(job=job, checksum=hashlib.sha256(begun).hexdigest(), size_bytes=len(begun))
                await take_in(blobs, upload, 0, body(begun[:length]))
        assert [facts.key for facts in await blobs.below("outputs")] == [kept.output_key, "outputs/p/j2/1-other.json"]
        last = hashlib.sha256(begun).hexdigest()
        found = [(facts.key.rpartition("/")[0], facts.size_bytes) for facts in await blobs.below("uploads")]
        assert found == [(f"uploads/j/1/{last}", 2), (f"uploads/j/11/{last}", 4)]

    anyio.run(main)


def test_a_piece_at_the_wrong_place_is_refused_with_the_right_one() -> None:
    async def main() -> None:
        blobs, upload = Blobs.in_memory(), upload_of(b"abcdef")
        await take_in(blobs, upload, 0, body(b"abc"))
        for offset in (0, 2, 4):
            with pytest.raises(Conflict, match="3 bytes have arrived"):
                await take_in(blobs, upload, offset, body(b"x"))

    anyio.run(main)


def test_more_than_announced_and_other_bytes_leave_nothing_in_place() -> None:
    async def main() -> None:
        blobs, upload = Blobs.in_memory(), upload_of(b"abcdef")
        with pytest.raises(TooLarge):
            await take_in(blobs, upload, 0, body(b"abcdefg"))
        with pytest.raises(InputError):
            await take_in(blobs, upload, 0, body(b"abcdeX"))
        assert await blobs.facts(upload.key) is None
        assert await uploaded_bytes(blobs, upload) == 0
        assert await take_in(blobs, upload, 0, body(b"abcdef")) == 6

    anyio.run(main)


def test_storage_that_fails_at_the_end_can_be_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        blobs, upload = Blobs.in_memory(), upload_of(b"abc")

        async def failing(parts: Any, key: str, *, checksum: str) -> bool:
            raise StoreAway("no storage")

        join = blobs.join
        monkeypatch.setattr(blobs, "join", failing)
        with pytest.raises(StoreAway):
            await take_in(blobs, upload, 0, body(b"abc"))
        monkeypatch.setattr(blobs, "join", join)
        assert await take_in(blobs, upload, 3, body()) == 3
        assert await blobs.get(upload.key) == b"abc"

    anyio.run(main)
