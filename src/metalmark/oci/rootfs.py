"""The root file system of an image: built once, cached, and held for as long as a box uses it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from metalmark.model import BoxTooSmall, Digest, ProgressSink, RootfsMode, format_bytes, ignore_progress
from metalmark.oci.bounds import Bounds
from metalmark.oci.cache import ImageCache
from metalmark.oci.ext4 import make_ext4
from metalmark.oci.image import ResolvedImage
from metalmark.oci.rootfs_build import build_rootfs
from metalmark.oci.rootfs_cache import DEFAULT_MAX_BYTES, RootfsCache

BUILDER_VERSION = 1
"""Part of the name in the cache: raise it when the same image is to give another file."""


@dataclass(frozen=True, kw_only=True)
class Rootfs:
    """A root file system in the cache."""

    path: Path
    """A squashfs, or the ext4 that each box gets a clone of. Never to be written."""
    mode: RootfsMode
    digest: Digest
    """Of the image's manifest."""
    cached: bool
    """Whether nothing had to be built."""


def rootfs_cache(cache: ImageCache) -> RootfsCache:
    """Return the cache of root file systems that belongs to a cache of images."""
    return RootfsCache(cache.folder / "rootfs")


@asynccontextmanager
async def open_rootfs(
    image: ResolvedImage,
    *,
    cache: ImageCache,
    mode: RootfsMode,
    disk_bytes: int,
    progress: ProgressSink = ignore_progress,
    bounds: Bounds | None = None,
    max_cache_bytes: int = DEFAULT_MAX_BYTES,
) -> AsyncIterator[Rootfs]:
    """Build the root file system of an image, or find it in the cache, and keep it there while the context lasts.

    Args:
        image: The image.
        cache: Where images and root file systems are kept.
        mode: `RootfsMode.OVERLAY` gives a squashfs, `RootfsMode.EXT4` an ext4 to be cloned and grown.
        disk_bytes: Size of the box's disk: an ext4 must fit.
        progress: Told how far a build is.
        bounds: Limits on the image; only looked at when it is built.
        max_cache_bytes: After a build, what has not been used for longest is removed down to this.

    Raises:
        LayerRefused: A layer is malformed, hostile or over a bound.
        BoxTooSmall: The disk is too small for the image's files.
        ToolMissing: A system tool is not installed, or fails.
        TransientError: A system tool was killed.
        NoSpace: The file system is full.
        NoPermission: An ext4 can only be made by root.
    """
    held = rootfs_cache(cache)
    name = f"{image.digest.algorithm}-{image.digest.hex}-v{BUILDER_VERSION}"

    async def build_squashfs(target: Path) -> None:
        await build_rootfs(image.layers, target, bounds=bounds, progress=progress)

    async def build_ext4(target: Path) -> None:
        async with held.held(f"{name}.squashfs", build_squashfs, max_bytes=None) as (squashfs, _):
            await make_ext4(squashfs, target, digest=image.digest)

    is_ext4 = mode is RootfsMode.EXT4
    build = build_ext4 if is_ext4 else build_squashfs
    async with held.held(f"{name}.{'ext4' if is_ext4 else 'squashfs'}", build, max_bytes=max_cache_bytes) as (
        path,
        cached,
    ):
        if is_ext4 and (size := path.stat().st_size) > disk_bytes:
            raise BoxTooSmall(
                f"a disk of {format_bytes(disk_bytes)}",
                why=f"the image's files need {format_bytes(size)}",
                hint="give --disk a larger size, or use --rootfs overlay",
            )
        yield Rootfs(path=path, mode=mode, digest=image.digest, cached=cached)
