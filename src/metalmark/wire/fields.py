"""The fields that a structured payload is made of: ``tag u8 | length u32 | value``, little-endian, one after another.

A tag may come several times (arguments, variables). A receiver skips tags it does not know, so that either side can
be newer. Integers are eight bytes, unsigned; text is UTF-8 where it is ours and raw bytes where it is the user's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from metalmark.model import ProtocolError

_HEADER = struct.Struct("<BI")
_INTEGER = struct.Struct("<Q")


def pack(fields: Iterable[tuple[int, bytes | int]]) -> bytes:
    """Return the bytes of some fields; an integer value becomes eight bytes."""
    parts: list[bytes] = []
    for tag, value in fields:
        raw = _INTEGER.pack(value) if isinstance(value, int) else value
        parts.append(_HEADER.pack(tag, len(raw)))
        parts.append(raw)
    return b"".join(parts)


class Fields:
    """The fields of one payload, by tag.

    Raises:
        ProtocolError: The payload is cut off within a field.
    """

    def __init__(self, payload: bytes) -> None:
        self._values: dict[int, list[bytes]] = {}
        offset = 0
        while offset < len(payload):
            if len(payload) - offset < _HEADER.size:
                raise ProtocolError("a payload that ends within a field's header")
            tag, length = _HEADER.unpack_from(payload, offset)
            offset += _HEADER.size
            if length > len(payload) - offset:
                raise ProtocolError(f"field {tag} announces {length} bytes", why="the payload ends before")
            self._values.setdefault(tag, []).append(payload[offset : offset + length])
            offset += length

    def all(self, tag: int) -> tuple[bytes, ...]:
        """Every value of a tag, in order."""
        return tuple(self._values.get(tag, ()))

    def raw(self, tag: int, default: bytes = b"") -> bytes:
        """The last value of a tag."""
        values = self._values.get(tag)
        return values[-1] if values else default

    def text(self, tag: int, default: str = "") -> str:
        """The last value of a tag as text; what is not UTF-8 is replaced, for it is only shown."""
        values = self._values.get(tag)
        return values[-1].decode("utf-8", "replace") if values else default

    def integer(self, tag: int, default: int = 0) -> int:
        """The last value of a tag as an unsigned integer.

        Raises:
            ProtocolError: The value is not eight bytes long.
        """
        values = self._values.get(tag)
        if not values:
            return default
        if len(values[-1]) != _INTEGER.size:
            raise ProtocolError(f"field {tag} has {len(values[-1])} bytes", why="an integer has eight")
        value: int = _INTEGER.unpack(values[-1])[0]
        return value
