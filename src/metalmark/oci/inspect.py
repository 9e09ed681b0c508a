"""What an image is, found out without fetching its layers."""

from __future__ import annotations

from dataclasses import dataclass

from metalmark.model import Digest, ImageConfig, Platform
from metalmark.oci.access import RegistryAccess
from metalmark.oci.cache import ImageCache
from metalmark.oci.finder import ManifestFinder
from metalmark.oci.manifest import Descriptor
from metalmark.oci.pull import open_origin
from metalmark.oci.source import ImageSource


@dataclass(frozen=True, kw_only=True)
class LayerDescription:
    """One layer."""

    digest: Digest
    media_type: str
    size_bytes: int
    diff_id: Digest


@dataclass(frozen=True, kw_only=True)
class ImageDescription:
    """What the documents of an image say; the layers are neither fetched nor verified."""

    source: ImageSource
    digest: Digest
    """Of the manifest."""
    index_digest: Digest | None
    """Of the index that the reference led to, if it did."""
    platform: Platform
    platforms: tuple[Platform, ...]
    """Everything that the index offers, or the one platform of the image."""
    created: str
    config: ImageConfig
    layers: tuple[LayerDescription, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of all layers as they are stored."""
        return sum(layer.size_bytes for layer in self.layers)


async def inspect(
    source: ImageSource, *, cache: ImageCache, platform: Platform, access: RegistryAccess | None = None
) -> ImageDescription:
    """Describe an image.

    Args:
        source: Where it is.
        cache: Where a packed archive is unpacked to be read.
        platform: Which image of an index is described.
        access: Credentials and transport for a registry.

    Raises:
        ImageError: See its subclasses.
        RegistryDenied: The registry answered no.
        RegistryUnavailable: It could not be reached, also after retries.
    """
    async with open_origin(source, access or RegistryAccess(), cache.images) as origin:
        root = await origin.root()
        finder = ManifestFinder(origin, platform, str(source))
        found = await finder.find(root)
    offered = tuple(dict.fromkeys(entry for entry in finder.offered if entry.os != "unknown"))
    return ImageDescription(
        source=source,
        digest=found.digest,
        index_digest=root.digest if root.digest != found.digest else None,
        platform=found.configuration.platform,
        platforms=tuple(sorted(offered, key=str)),
        created=found.configuration.created,
        config=found.configuration.config,
        layers=tuple(
            _layer(layer, diff_id)
            for layer, diff_id in zip(found.manifest.layers, found.configuration.diff_ids, strict=True)
        ),
    )


def _layer(layer: Descriptor, diff_id: Digest) -> LayerDescription:
    return LayerDescription(
        digest=layer.digest, media_type=layer.media_type, size_bytes=layer.size_bytes, diff_id=diff_id
    )
