"""Images: resolve, fetch, verify, pack, and turn layers into a root file system."""

from __future__ import annotations

from metalmark.oci.access import Patience, RegistryAccess
from metalmark.oci.bounds import Bounds, Tally
from metalmark.oci.cache import CachedImage, ImageCache
from metalmark.oci.collect import DEFAULT_MAX_BYTES, Collected, collect
from metalmark.oci.entry import Entry, EntryKind
from metalmark.oci.image import LayerBlob, ResolvedImage
from metalmark.oci.inspect import ImageDescription, LayerDescription, inspect
from metalmark.oci.media import Compression
from metalmark.oci.merge import Merger, OutOfOrder
from metalmark.oci.merge_plan import MergePlan
from metalmark.oci.pack import PackedImage, PackRequest, pack
from metalmark.oci.packing_list import PackSource
from metalmark.oci.pull import pull
from metalmark.oci.push import PushedImage, PushRequest, delete_image, push
from metalmark.oci.reference import Reference
from metalmark.oci.resolve import ResolvedReference, resolve_reference
from metalmark.oci.rootfs import Rootfs, open_rootfs, rootfs_cache
from metalmark.oci.rootfs_cache import CachedRootfs, RootfsCache
from metalmark.oci.source import ImageSource, SourceKind, parse_source
from metalmark.oci.tar_stream import TarReader

__all__ = [
    "DEFAULT_MAX_BYTES",
    "Bounds",
    "CachedImage",
    "CachedRootfs",
    "Collected",
    "Compression",
    "Entry",
    "EntryKind",
    "ImageCache",
    "ImageDescription",
    "ImageSource",
    "LayerBlob",
    "LayerDescription",
    "MergePlan",
    "Merger",
    "OutOfOrder",
    "PackRequest",
    "PackSource",
    "PackedImage",
    "Patience",
    "PushRequest",
    "PushedImage",
    "Reference",
    "RegistryAccess",
    "ResolvedImage",
    "ResolvedReference",
    "Rootfs",
    "RootfsCache",
    "SourceKind",
    "Tally",
    "TarReader",
    "collect",
    "delete_image",
    "inspect",
    "open_rootfs",
    "pack",
    "parse_source",
    "pull",
    "push",
    "resolve_reference",
    "rootfs_cache",
]
