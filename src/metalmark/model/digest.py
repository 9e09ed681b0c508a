"""A content digest as the OCI image specification defines it: ``sha256:`` or ``sha512:`` and lower-case hex."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Protocol

from metalmark.model.errors import InputError

_HEX_LENGTH = {"sha256": 64, "sha512": 128}
_HEX = re.compile(r"[0-9a-f]+")


class Hasher(Protocol):
    """The part of a hashlib object that is used here."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Take in more bytes."""

    def hexdigest(self) -> str:
        """Return the digest of what was taken in so far as lower-case hex."""
        ...


@dataclass(frozen=True, order=True)
class Digest:
    """An algorithm and the lower-case hex of its value. Made by `parse` or `of`, so it is always well formed."""

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: str, *, field: str = "digest") -> Digest:
        """Read ``algorithm:hex``.

        Raises:
            InputError: The algorithm is not registered, or the hex is upper case, of wrong length or not hex.
        """
        algorithm, colon, value = text.partition(":")
        length = _HEX_LENGTH.get(algorithm)
        if not colon or length is None:
            raise InputError(field, text, "a digest is sha256: or sha512: followed by lower-case hex")
        if len(value) != length or not _HEX.fullmatch(value):
            raise InputError(field, text, f"{algorithm} takes exactly {length} lower-case hex digits")
        return cls(algorithm, value)

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Digest:
        """Return the digest of some bytes in memory."""
        return cls(algorithm, hashlib.new(algorithm, data).hexdigest())

    def hasher(self) -> Hasher:
        """Return a fresh hash object of this digest's algorithm."""
        return hashlib.new(self.algorithm)

    @property
    def short(self) -> str:
        """The first twelve hex digits, for people."""
        return self.hex[:12]

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"
