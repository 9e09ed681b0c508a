"""The tar stream of a layer, unpacked in a thread of its own while the entries before are still being handled."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from metalmark.model import LayerRefused
from metalmark.oci.unpack import Unpacker, UnpackLimits, UnpackRefused

_READ_BYTES = 256 * 1024
_QUEUED = 32
"""Pieces that may wait: 8 MiB. Enough to ride out the time that either side spends elsewhere."""


class _Closed(Exception):
    """Nobody wants the rest."""


class LayerStream:
    """Yields the unpacked bytes of a layer in pieces.

    Args:
        path: The blob.
        layer: Its digest, for errors.
        limits: How much may come out.
    """

    def __init__(self, path: Path, *, layer: str, limits: UnpackLimits | None = None) -> None:
        self._path = path
        self._layer = layer
        self._limits = limits
        self._queue: queue.Queue[bytes | BaseException | None] = queue.Queue(_QUEUED)
        self._closed = threading.Event()
        self.packed_bytes = 0
        """How much of the blob has been read."""
        self._thread = threading.Thread(target=self._unpack, name="metalmark-unpack", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        while self._thread.is_alive():
            # The thread may be waiting for room; after one more piece it sees the flag.
            while not self._queue.empty():
                self._queue.get()
            self._thread.join(0.01)

    def __iter__(self) -> Iterator[bytes]:
        """Yield the pieces.

        Raises:
            LayerRefused: The blob is damaged, or unpacks to too much.
            OSError: It cannot be read.
        """
        while (piece := self._queue.get()) is not None:
            if isinstance(piece, UnpackRefused):
                raise LayerRefused(self._layer, "", str(piece)) from piece
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    def _unpack(self) -> None:
        try:
            unpacker = Unpacker(self._put, self._limits)
            with self._path.open("rb", buffering=0) as blob:
                while data := blob.read(_READ_BYTES):
                    unpacker.feed(data)
                    self.packed_bytes += len(data)
            unpacker.finish()
            self._put(None)
        except _Closed:
            pass
        except Exception as error:  # noqa: BLE001 - handed to the thread that reads
            self._queue.put(error)

    def _put(self, piece: bytes | None) -> None:
        if self._closed.is_set():
            raise _Closed
        self._queue.put(piece)
