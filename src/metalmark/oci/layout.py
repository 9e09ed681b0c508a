"""OCI image layouts, as a folder or a tar file (OCI image specification 1.1, "Image layout")."""

from __future__ import annotations

from collections.abc import AsyncIterator

from metalmark.model import MIB, ImageNotFound, InputError, NotAnImage
from metalmark.oci import media
from metalmark.oci.bundle import Bundle, read_file
from metalmark.oci.documents import Node, shown
from metalmark.oci.incoming import IncomingBlob
from metalmark.oci.manifest import MAX_DOCUMENT_BYTES, Descriptor, Index, read_document
from metalmark.oci.origin import Advance, Root
from metalmark.oci.source import ImageSource
from metalmark.system import in_thread

_VERSION = "1.0.0"
_CHUNK_BYTES = 4 * MIB


class LayoutOrigin:
    """One image of an OCI layout.

    Args:
        source: Where it is and which of its images is meant.
        bundle: Its files; closed with this object.
    """

    def __init__(self, source: ImageSource, bundle: Bundle) -> None:
        self._source = source
        self._bundle = bundle

    async def root(self) -> Root:
        """Return the document that the selector leads to."""
        return await in_thread(self._root)

    async def read(self, descriptor: Descriptor) -> bytes:
        """Return a small document."""
        return await in_thread(self._read, descriptor)

    async def copy(self, descriptor: Descriptor, blob: IncomingBlob, advance: Advance) -> None:
        """Write a blob into the cache."""
        await copy_file(self._bundle, _blob_name(descriptor), blob, advance)

    def pieces(self, descriptor: Descriptor, offset: int) -> AsyncIterator[bytes]:
        """Yield a blob from an offset on."""
        return file_pieces(self._bundle, _blob_name(descriptor), offset)

    async def aclose(self) -> None:
        """Close the files."""
        await in_thread(self._bundle.close)

    def _root(self) -> Root:
        check_version(self._bundle)
        what = f"index.json of {self._source.location}"
        index = read_document(
            read_file(self._bundle, "index.json", MAX_DOCUMENT_BYTES), media_type=media.OCI_INDEX, what=what
        )
        if not isinstance(index, Index):
            raise NotAnImage(f"{what} is a manifest", why="a layout's index.json is an index")
        chosen = self._choose(index.manifests)
        if len(chosen) > 1:
            return Root(document=Index(media_type=index.media_type, manifests=chosen), data=b"", digest=None)
        data = self._read(chosen[0])
        return Root.read(data, chosen[0].digest, media_type=chosen[0].media_type, what=f"manifest {chosen[0].digest}")

    def _choose(self, manifests: tuple[Descriptor, ...]) -> tuple[Descriptor, ...]:
        where, selector = self._source.location, self._source.selector
        names = sorted({name for entry in manifests for name in entry.names[:1]})
        if not manifests:
            raise ImageNotFound(f"{where} holds no image", why="its index.json is empty")
        if selector:
            wanted = selector.removeprefix("@")
            chosen = tuple(entry for entry in manifests if wanted in entry.names or wanted == str(entry.digest))
            if not chosen:
                raise ImageNotFound(
                    f"{where} holds no image {shown(wanted)}", why=f"it has {_listed(names) or 'images without a name'}"
                )
            return chosen
        if len({entry.names[:1] for entry in manifests}) > 1:
            raise InputError(
                "IMAGE", where, f"it holds several images: {_listed(names)}", hint=f"choose one: oci:{where}:{names[0]}"
            )
        return manifests

    def _read(self, descriptor: Descriptor) -> bytes:
        return read_file(self._bundle, _blob_name(descriptor), MAX_DOCUMENT_BYTES)


def check_version(bundle: Bundle) -> None:
    """Refuse a layout of a version that is not known here; one without ``oci-layout`` is taken as the known one.

    Raises:
        NotAnImage: Another version.
    """
    if not bundle.has("oci-layout"):
        return
    version = Node.parse(read_file(bundle, "oci-layout", MIB), what=f"oci-layout of {bundle.path}").get(
        "imageLayoutVersion"
    )
    if version.text() != _VERSION:
        version.refuse(_VERSION)


async def copy_file(bundle: Bundle, name: str, blob: IncomingBlob, advance: Advance) -> None:
    """Write a file of a bundle into the cache, a piece at a time so that it can be canceled in between.

    Raises:
        NotAnImage: There is no such file.
        DigestMismatch: It is too long.
    """
    section = await in_thread(bundle.open, name)

    def step(offset: int) -> int:
        data = section.read(offset, _CHUNK_BYTES)
        blob.write(data)
        return len(data)

    offset = 0
    while count := await in_thread(step, offset):
        offset += count
        advance(offset)


async def file_pieces(bundle: Bundle, name: str, offset: int) -> AsyncIterator[bytes]:
    """Yield a file of a bundle from an offset on.

    Raises:
        NotAnImage: There is no such file.
    """
    section = await in_thread(bundle.open, name)
    while data := await in_thread(section.read, offset, MIB):
        offset += len(data)
        yield data


def _blob_name(descriptor: Descriptor) -> str:
    return f"blobs/{descriptor.digest.algorithm}/{descriptor.digest.hex}"


def _listed(names: list[str]) -> str:
    more = ", …" if len(names) > 8 else ""
    return ", ".join(shown(name) for name in names[:8]) + more
