"""Images: resolve, fetch, verify, pack, and turn layers into a root file system."""

from __future__ import annotations

from metalmark.oci.access import Patience, RegistryAccess
from metalmark.oci.cache import ImageCache
from metalmark.oci.image import LayerBlob, ResolvedImage
from metalmark.oci.media import Compression
from metalmark.oci.pack import PackedImage, PackRequest, pack
from metalmark.oci.packing_list import PackSource
from metalmark.oci.pull import pull
from metalmark.oci.reference import Reference
from metalmark.oci.source import ImageSource, SourceKind, parse_source

__all__ = [
    "Compression",
    "ImageCache",
    "ImageSource",
    "LayerBlob",
    "PackRequest",
    "PackSource",
    "PackedImage",
    "Patience",
    "Reference",
    "RegistryAccess",
    "ResolvedImage",
    "SourceKind",
    "pack",
    "parse_source",
    "pull",
]
