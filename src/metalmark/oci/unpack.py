"""Decompression of layers that are pushed through in pieces, bounded in memory, size and ratio."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import IO, Protocol, cast

from metalmark.model import GIB, MIB, format_bytes
from metalmark.oci.media import Compression

_SLICE_BYTES = 32 * 1024
_PIECE_BYTES = 256 * 1024
_MAGIC_BYTES = 4
_ZSTD_WINDOW_BYTES = 128 * MIB
"""The largest window that RFC 8878 lets a decoder be asked for without the user's consent is 8 MiB; zstd --ultra and
--long use up to this."""


class UnpackRefused(ValueError):
    """The stream is damaged or unpacks to too much. Internal: callers name the layer and raise `LayerRefused`."""


@dataclass(frozen=True, kw_only=True)
class UnpackLimits:
    """How much a stream may unpack to."""

    max_bytes: int = 64 * GIB
    free_bytes: int = 256 * MIB
    """Up to here any ratio will do: an image may well hold a file of zeros."""
    ratio: int = 200
    """Beyond ``free_bytes``: unpacked bytes for each packed byte."""


class Unpacker:
    """Takes a blob in pieces, finds out how it is packed, and hands the unpacked bytes to a sink.

    Args:
        sink: Called with each piece of at most 256 KiB.
        limits: How much may come out.
    """

    def __init__(self, sink: Callable[[bytes], object], limits: UnpackLimits | None = None) -> None:
        self._sink = sink
        self._limits = limits or UnpackLimits()
        self._start = b""
        self._decoder: _Plain | _Gzip | _Zstd | None = None
        self.packed_bytes = 0
        self.unpacked_bytes = 0

    @property
    def compression(self) -> Compression:
        """How the stream is packed; plain until four bytes have come."""
        return Compression.NONE if self._decoder is None else self._decoder.compression

    def feed(self, data: bytes) -> None:
        """Take in more of the blob.

        Raises:
            UnpackRefused: It is damaged, or more comes out than the limits allow.
        """
        self.packed_bytes += len(data)
        if self._decoder is None:
            self._start += data
            if len(self._start) < _MAGIC_BYTES:
                return
            data, self._start = self._start, b""
            self._decoder = self._make(data)
        view = memoryview(data)
        for offset in range(0, len(data), _SLICE_BYTES):
            self._decoder.feed(bytes(view[offset : offset + _SLICE_BYTES]))

    def finish(self) -> None:
        """State that the blob has ended.

        Raises:
            UnpackRefused: It ended in the middle.
        """
        if self._decoder is None:
            self._decoder = self._make(self._start)
            self._decoder.feed(self._start)
        self._decoder.finish()

    def _make(self, start: bytes) -> _Plain | _Gzip | _Zstd:
        match Compression.of(start[:_MAGIC_BYTES]):
            case Compression.GZIP:
                return _Gzip(self._emit)
            case Compression.ZSTD:
                return _Zstd(self._emit)
            case Compression.NONE:
                return _Plain(self._emit)

    def _emit(self, piece: bytes) -> None:
        self.unpacked_bytes += len(piece)
        limits = self._limits
        if self.unpacked_bytes > limits.max_bytes:
            raise UnpackRefused(f"it unpacks to more than {format_bytes(limits.max_bytes)}")
        if self.unpacked_bytes > limits.free_bytes and self.unpacked_bytes > limits.ratio * self.packed_bytes:
            raise UnpackRefused(
                f"it unpacks to more than {limits.ratio} times its size "
                f"({format_bytes(self.packed_bytes)} gave {format_bytes(self.unpacked_bytes)} so far)"
            )
        self._sink(piece)


class _Plain:
    compression = Compression.NONE

    def __init__(self, emit: Callable[[bytes], None]) -> None:
        self._emit = emit

    def feed(self, data: bytes) -> None:
        self._emit(data)

    def finish(self) -> None:
        """Nothing is held back."""


class _Member(Protocol):
    """The part of zlib's decompressor that isal's has too."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def unconsumed_tail(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Gzip:
    """RFC 1952: members one after the other; zeros after the last are padding that tape-minded writers leave."""

    compression = Compression.GZIP

    def __init__(self, emit: Callable[[bytes], None]) -> None:
        # ISA-L inflates more than twice as fast as zlib, and inflating is most of what a first run waits for.
        from isal import isal_zlib  # noqa: PLC0415 - a cached run needs none of this

        self._new_member: Callable[[], _Member] = partial(isal_zlib.decompressobj, wbits=31)
        # Their stub says that it is an instance.
        self._error = cast("type[Exception]", isal_zlib.error)
        self._emit = emit
        self._member: _Member = self._new_member()
        self._padding = False

    def feed(self, data: bytes) -> None:
        while data:
            if self._member.eof:
                if self._padding or data[0] == 0:
                    self._padding = True
                    if data.strip(b"\0"):
                        raise UnpackRefused("something other than zeros follows the gzip stream")
                    return
                self._member = self._new_member()
            data = self._feed_member(data)

    def _feed_member(self, data: bytes) -> bytes:
        member = self._member
        while True:
            try:
                piece = member.decompress(data, _PIECE_BYTES)
            except self._error as error:
                raise UnpackRefused(f"its gzip stream is damaged ({error})") from error
            if piece:
                self._emit(piece)
            if member.eof:
                return member.unused_data
            data = member.unconsumed_tail
            # A full piece may have left output inside the decompressor even when no input is left.
            if not data and len(piece) < _PIECE_BYTES:
                return b""

    def finish(self) -> None:
        if not self._member.eof:
            raise UnpackRefused("its gzip stream ends in the middle")


class _Zstd:
    """RFC 8878: frames and skippable frames one after the other.

    A stream that ends within a frame is not told apart here; the diff_id of what came out does that.
    """

    compression = Compression.ZSTD

    def __init__(self, emit: Callable[[bytes], None]) -> None:
        import zstandard  # noqa: PLC0415 - most layers are gzip, and a cached run needs none of this

        self._error = zstandard.ZstdError
        self._writer = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES).stream_writer(
            cast("IO[bytes]", _Sink(emit)), write_size=_PIECE_BYTES, closefd=False
        )

    def feed(self, data: bytes) -> None:
        try:
            self._writer.write(data)
        except self._error as error:
            raise UnpackRefused(f"its zstd stream is damaged ({error})") from error

    def finish(self) -> None:
        """Every byte that could be decoded has been handed on."""


class _Sink:
    """The part of a file that zstandard's writer wants."""

    def __init__(self, emit: Callable[[bytes], None]) -> None:
        self._emit = emit

    def write(self, data: bytes) -> int:
        self._emit(data)
        return len(data)
