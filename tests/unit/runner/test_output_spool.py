from __future__ import annotations

from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalmark.model import OutputLimits
from metalmark.runner.output_spool import OutputSpool, StreamSpool
from metalmark.sandbox import Stream


@given(pieces=st.lists(st.binary(max_size=50), max_size=20), limit=st.integers(0, 200))
def test_kept_is_the_beginning_and_counts_are_exact(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], limit: int
) -> None:
    spool = StreamSpool(tmp_path_factory.mktemp("s") / "stdout", limit_bytes=limit)
    for piece in pieces:
        spool.write(piece)
    spool.end()
    spool.close()
    whole = b"".join(pieces)
    result = spool.result(0)
    assert spool.path.read_bytes() == whole[:limit]
    assert (result.kept_bytes, result.written_bytes) == (min(limit, len(whole)), len(whole))
    assert result.truncated is (len(whole) > limit)


def test_what_the_guest_dropped_itself_counts_as_truncated(tmp_path: Path) -> None:
    spool = StreamSpool(tmp_path / "stdout", limit_bytes=10)
    spool.write(b"x" * 10)
    spool.close()
    assert spool.result(1_000_000).truncated
    assert spool.result(1_000_000).written_bytes == 1_000_000
    # A guest that says it wrote less than it sent is not believed.
    assert spool.result(3).written_bytes == 10


@pytest.mark.anyio
async def test_reader_waits_for_more_and_ends_with_the_stream(tmp_path: Path) -> None:
    with OutputSpool(tmp_path / "s", OutputLimits()) as spool:
        read: list[bytes] = []

        async def follow() -> None:
            offset = 0
            while data := await spool.stdout.read(offset, 4):
                read.append(data)
                offset += len(data)

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(follow)
                await anyio.lowlevel.checkpoint()
                spool.take(Stream.STDOUT, b"abcdef")
                await anyio.lowlevel.checkpoint()
                spool.take(Stream.STDOUT, b"gh")
                spool.take(Stream.STDERR, b"other")
                spool.end()
        assert b"".join(read) == b"abcdefgh"


def test_tap_is_handed_what_is_kept_and_no_more(tmp_path: Path) -> None:
    seen: list[tuple[Stream, bytes]] = []
    with OutputSpool(
        tmp_path / "1", OutputLimits(stream_bytes=4), tap=lambda stream, data: seen.append((stream, data))
    ) as spool:
        spool.take(Stream.STDOUT, b"abc")
        spool.take(Stream.STDERR, b"x")
        spool.take(Stream.STDOUT, b"def")
        spool.take(Stream.STDOUT, b"ghi")
    assert seen == [(Stream.STDOUT, b"abc"), (Stream.STDERR, b"x"), (Stream.STDOUT, b"d")]
