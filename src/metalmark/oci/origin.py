"""Where the bytes of an image come from: a folder, an archive or a registry, behind one small port."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from metalmark.model import Digest
from metalmark.oci.incoming import IncomingBlob
from metalmark.oci.manifest import Descriptor, Index, Manifest, read_document

Advance = Callable[[int], None]
"""Called with the number of bytes of a blob that have arrived so far."""


@dataclass(frozen=True, kw_only=True)
class Root:
    """The document that a reference leads to."""

    document: Manifest | Index
    data: bytes
    digest: Digest | None
    """None: put together from several entries of a layout's ``index.json``, so it stands for nothing by itself."""

    @classmethod
    def read(cls, data: bytes, digest: Digest, *, media_type: str, what: str) -> Root:
        """Read a document whose digest is known.

        Raises:
            NotAnImage: It is malformed.
        """
        return cls(document=read_document(data, media_type=media_type, what=what), data=data, digest=digest)


class Origin(Protocol):
    """One image at one place."""

    async def root(self) -> Root:
        """Return the document that the reference leads to.

        Raises:
            ImageError: There is none, or it cannot be read.
            RegistryDenied: Not for these credentials.
            RegistryUnavailable: After retries.
        """
        ...

    async def read(self, descriptor: Descriptor) -> bytes:
        """Return a small document; its digest is verified by the caller."""
        ...

    async def copy(self, descriptor: Descriptor, blob: IncomingBlob, advance: Advance) -> None:
        """Write a blob into the cache; the caller commits."""
        ...

    def pieces(self, descriptor: Descriptor, offset: int) -> AsyncIterator[bytes]:
        """Yield a blob from an offset on, as it is: whoever takes it checks its digest."""
        ...

    async def aclose(self) -> None:
        """Give back connections and files."""
        ...
