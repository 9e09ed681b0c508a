"""The frame in which host and guest agent speak.

A frame is ``type u8 | stream u32 | length u32 | payload``, little-endian, no padding. ``stream`` names the command or
transfer that a frame belongs to; 0 is the box itself. A payload is at most `MAX_PAYLOAD_BYTES`; a longer announced
length is a protocol error, found before any of it is read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from metalmark.model import ProtocolError

_HEADER = struct.Struct("<BII")
HEADER_BYTES = _HEADER.size
MAX_PAYLOAD_BYTES = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One frame. ``kind`` is the type byte; see `metalmark.wire.guest` for its values."""

    kind: int
    stream: int
    payload: bytes = b""


def encode(frame: Frame) -> bytes:
    """Return a frame's bytes.

    Raises:
        ProtocolError: The payload is over the bound.
    """
    if len(frame.payload) > MAX_PAYLOAD_BYTES:
        raise ProtocolError(f"a frame of {len(frame.payload)} bytes", why=f"the most is {MAX_PAYLOAD_BYTES}")
    return _HEADER.pack(frame.kind, frame.stream, len(frame.payload)) + frame.payload


class FrameDecoder:
    """Cuts a byte stream into frames. Holds at most one incomplete frame and what was fed last."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take in bytes and yield the frames that they complete.

        Raises:
            ProtocolError: A header announces a payload over the bound. The decoder is of no use afterwards.
        """
        self._buffer += data
        offset = 0
        try:
            while len(self._buffer) - offset >= HEADER_BYTES:
                kind, stream, length = _HEADER.unpack_from(self._buffer, offset)
                if length > MAX_PAYLOAD_BYTES:
                    raise ProtocolError(
                        f"a frame that announces {length} bytes", why=f"the most is {MAX_PAYLOAD_BYTES}"
                    )
                end = offset + HEADER_BYTES + length
                if len(self._buffer) < end:
                    break
                payload = bytes(self._buffer[offset + HEADER_BYTES : end])
                offset = end
                yield Frame(kind=kind, stream=stream, payload=payload)
        finally:
            del self._buffer[:offset]

    @property
    def pending_bytes(self) -> int:
        """Bytes of an incomplete frame; not zero at the end of a stream means that it was cut."""
        return len(self._buffer)
