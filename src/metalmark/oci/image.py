"""An image that has been resolved: every byte of it is in the cache and verified."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from metalmark.model import Digest, ImageConfig, Platform
from metalmark.oci.media import Compression


@dataclass(frozen=True, kw_only=True)
class LayerBlob:
    """One layer, as a file in the cache whose digest and diff_id were verified when it entered."""

    digest: Digest
    """Of the blob as it is stored."""
    media_type: str
    size_bytes: int
    """Of the blob as it is stored."""
    diff_id: Digest
    """Of the tar stream inside."""
    compression: Compression
    """What the blob really is, whatever its media type says."""
    path: Path


@dataclass(frozen=True, kw_only=True)
class ResolvedImage:
    """One image for one platform. It is protected from clean-up until its `ImageCache` is closed."""

    reference: str
    """What the user wrote."""
    digest: Digest
    """Of the image's manifest (not of an index that led to it)."""
    platform: Platform
    config: ImageConfig
    layers: tuple[LayerBlob, ...]
    """Bottom layer first, as in the manifest."""
    cached: bool = False
    """Whether nothing had to be fetched."""

    @property
    def size_bytes(self) -> int:
        """Bytes of all layers as they are stored."""
        return sum(layer.size_bytes for layer in self.layers)
