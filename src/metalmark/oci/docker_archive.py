"""What ``docker save`` writes: ``manifest.json`` naming a configuration and layer files, packed or unpacked.

Such an archive has no manifest of the image and no layer digests, only diff_ids. An OCI manifest is made from what is
there; the same archive always gives the same one. Newer archives that also have ``index.json`` are read as layouts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

from metalmark.model import MIB, Digest, ImageNotFound, InputError, NotAnImage
from metalmark.oci import media
from metalmark.oci.bundle import Bundle, Section, read_file
from metalmark.oci.configuration import read_configuration
from metalmark.oci.documents import Node, shown
from metalmark.oci.incoming import IncomingBlob
from metalmark.oci.layout import copy_file, file_pieces
from metalmark.oci.manifest import MAX_DOCUMENT_BYTES, Descriptor
from metalmark.oci.media import Compression
from metalmark.oci.origin import Advance, Root
from metalmark.oci.source import ImageSource
from metalmark.system import in_thread

_MAX_IMAGES = 4096
_MAX_LAYERS = 1024
_CHUNK_BYTES = MIB


@dataclass(frozen=True, kw_only=True)
class _Image:
    config: str
    names: tuple[str, ...]
    layers: tuple[str, ...]


class DockerArchiveOrigin:
    """One image of a ``docker save`` archive.

    Args:
        source: Where it is and which of its images is meant.
        bundle: Its files; closed with this object.
    """

    def __init__(self, source: ImageSource, bundle: Bundle) -> None:
        self._source = source
        self._bundle = bundle
        self._files: dict[Digest, str] = {}

    async def root(self) -> Root:
        """Return the manifest that was made for the image."""
        return await in_thread(self._root)

    async def read(self, descriptor: Descriptor) -> bytes:
        """Return the configuration."""
        return await in_thread(read_file, self._bundle, self._files[descriptor.digest], MAX_DOCUMENT_BYTES)

    async def copy(self, descriptor: Descriptor, blob: IncomingBlob, advance: Advance) -> None:
        """Write a layer into the cache."""
        await copy_file(self._bundle, self._files[descriptor.digest], blob, advance)

    def pieces(self, descriptor: Descriptor, offset: int) -> AsyncIterator[bytes]:
        """Yield a blob from an offset on."""
        return file_pieces(self._bundle, self._files[descriptor.digest], offset)

    async def aclose(self) -> None:
        """Close the files."""
        await in_thread(self._bundle.close)

    def _root(self) -> Root:
        image = self._choose(self._images())
        config = read_file(self._bundle, image.config, MAX_DOCUMENT_BYTES)
        config_digest = Digest.of(config)
        what = f"configuration {shown(image.config)} of {self._source.location}"
        diff_ids = read_configuration(config, what=what).diff_ids
        if len(diff_ids) != len(image.layers):
            raise NotAnImage(f"{what} lists {len(diff_ids)} layers", why=f"manifest.json lists {len(image.layers)}")
        self._files[config_digest] = image.config
        layers = [self._layer(name, diff_id) for name, diff_id in zip(image.layers, diff_ids, strict=True)]
        data = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": media.OCI_MANIFEST,
                "config": {"mediaType": media.OCI_CONFIG, "digest": str(config_digest), "size": len(config)},
                "layers": layers,
            },
            separators=(",", ":"),
        ).encode()
        digest = Digest.of(data)
        return Root.read(data, digest, media_type=media.OCI_MANIFEST, what=f"manifest {digest}")

    def _layer(self, name: str, diff_id: Digest) -> dict[str, object]:
        section = self._bundle.open(name)
        compression = Compression.of(section.read(0, 4))
        # The digest of a plain layer is its diff_id, which is verified on entry like any other.
        digest = diff_id if compression is Compression.NONE else _digest_of(section)
        self._files[digest] = name
        return {
            "mediaType": media.layer_media_type(compression),
            "digest": str(digest),
            "size": section.size_bytes,
        }

    def _images(self) -> list[_Image]:
        what = f"manifest.json of {self._source.location}"
        top = Node.parse(read_file(self._bundle, "manifest.json", MAX_DOCUMENT_BYTES), what=what)
        return [
            _Image(
                config=item.get("Config").text(),
                names=item.get("RepoTags").texts(_MAX_IMAGES),
                layers=item.get("Layers").texts(_MAX_LAYERS),
            )
            for item in top.items(_MAX_IMAGES)
        ]

    def _choose(self, images: list[_Image]) -> _Image:
        where, selector = self._source.location, self._source.selector
        names = [shown(name) for image in images for name in image.names]
        if not images:
            raise ImageNotFound(f"{where} holds no image", why="its manifest.json is empty")
        if selector:
            chosen = [image for image in images if _is_named(image, selector)]
            if not chosen:
                raise ImageNotFound(
                    f"{where} holds no image {shown(selector)}",
                    why=f"it has {', '.join(names[:8]) or 'images without a name'}",
                )
            return chosen[0]
        if len(images) > 1:
            raise InputError(
                "IMAGE",
                where,
                f"it holds several images: {', '.join(names[:8])}",
                hint=f"choose one: docker-archive:{where}:NAME:TAG",
            )
        return images[0]


def _is_named(image: _Image, selector: str) -> bool:
    return any(name in (selector, f"{selector}:latest") or name.endswith(f"/{selector}") for name in image.names)


def _digest_of(section: Section) -> Digest:
    hasher = hashlib.sha256()
    offset = 0
    while data := section.read(offset, _CHUNK_BYTES):
        hasher.update(data)
        offset += len(data)
    return Digest("sha256", hasher.hexdigest())
