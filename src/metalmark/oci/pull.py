"""Bring an image into the cache, whole and verified."""

from __future__ import annotations

from metalmark.model import Platform, ProgressSink, ignore_progress
from metalmark.oci.access import RegistryAccess
from metalmark.oci.cache import ImageCache
from metalmark.oci.image import ResolvedImage
from metalmark.oci.source import ImageSource


async def pull(
    source: ImageSource,
    *,
    cache: ImageCache,
    platform: Platform,
    access: RegistryAccess | None = None,
    progress: ProgressSink = ignore_progress,
) -> ResolvedImage:
    """Resolve an image for a platform and bring what is missing of it into the cache.

    Raises:
        ImageError: See its subclasses.
        RegistryDenied: The registry answered no.
        RegistryUnavailable: It could not be reached, also after retries.
        NoSpace: The cache's file system is full; nothing half-written stays.
    """
    raise NotImplementedError(source, cache, platform, access, progress)
