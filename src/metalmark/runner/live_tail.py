"""The latest of what a job printed, by absolute byte offset, until the server has it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from metalmark.wire import CHUNK_MAX_BYTES, CHUNKS_MAX, OutputChunk

TAIL_MAX_BYTES = 4 * 1024 * 1024
"""Most live output of a job that waits for the server."""
_SECTION_BYTES = 1024 * 1024
"""Most bytes of one section: in Base64 it has to fit a message, and a heartbeat should not wait behind more."""

StreamName = Literal["stdout", "stderr"]


@dataclass(frozen=True, kw_only=True)
class LiveSection:
    """Consecutive output: ``offset`` is that of its first byte among all that the job printed, both streams counted."""

    offset: int
    size_bytes: int
    chunks: tuple[OutputChunk, ...]


@dataclass(kw_only=True)
class _Piece:
    """Consecutive output of one stream of one iteration."""

    iteration: int
    stream: StreamName
    data: bytearray


class LiveTail:
    """A bounded buffer of live output. Never blocks its writer: beyond the bound the oldest is dropped.

    Args:
        limit_bytes: The bound.
        changed: Called when there is more to read.
    """

    def __init__(self, *, limit_bytes: int = TAIL_MAX_BYTES, changed: Callable[[], None] = lambda: None) -> None:
        self._limit_bytes = limit_bytes
        self._changed = changed
        self._pieces: deque[_Piece] = deque()
        self._start = 0
        self._end = 0
        self._closed = False

    @property
    def end_offset(self) -> int:
        """How many bytes the job printed so far."""
        return self._end

    @property
    def start_offset(self) -> int:
        """Offset of the oldest byte that is still here."""
        return self._start

    def write(self, data: bytes, *, iteration: int, stream: StreamName) -> None:
        """Take what the job printed."""
        if not data:
            return
        self._end += len(data)
        if self._closed:
            self._start = self._end
            return
        # Whole chunks are made of small writes, so that a benchmark that prints by the letter costs no more.
        last = self._pieces[-1] if self._pieces else None
        if last is None or (last.iteration, last.stream) != (iteration, stream):
            last = _Piece(iteration=iteration, stream=stream, data=bytearray())
            self._pieces.append(last)
        rest = memoryview(data)
        while rest:
            if len(last.data) >= CHUNK_MAX_BYTES:
                last = _Piece(iteration=iteration, stream=stream, data=bytearray())
                self._pieces.append(last)
            room = CHUNK_MAX_BYTES - len(last.data)
            last.data += rest[:room]
            rest = rest[room:]
        self._drop_before(self._end - self._limit_bytes)
        self._changed()

    def read(self, offset: int) -> LiveSection | None:
        """Return what follows an offset, as much as one message takes; None when there is nothing (yet).

        Begins later than asked when what is between was dropped.
        """
        begin = at = max(offset, self._start)
        place, size = self._start, 0
        chunks: list[OutputChunk] = []
        for piece in self._pieces:
            end = place + len(piece.data)
            if end > at:
                data = bytes(piece.data[at - place : at - place + _SECTION_BYTES - size])
                chunks.append(OutputChunk.of(data, iteration=piece.iteration, stream=piece.stream))
                size += len(data)
                at += len(data)
                if len(chunks) == CHUNKS_MAX or size >= _SECTION_BYTES:
                    break
            place = end
        return LiveSection(offset=begin, size_bytes=size, chunks=tuple(chunks)) if chunks else None

    def forget(self, offset: int) -> None:
        """Everything before this offset was acknowledged."""
        self._drop_before(min(offset, self._end))

    def close(self) -> None:
        """The server takes no more of it: drop everything, and what comes from now on."""
        self._closed = True
        self._pieces.clear()
        self._start = self._end

    def _drop_before(self, offset: int) -> None:
        while self._start < offset:
            first = self._pieces[0]
            surplus = min(offset - self._start, len(first.data))
            if surplus == len(first.data):
                self._pieces.popleft()
            else:
                del first.data[:surplus]
            self._start += surplus
