"""Clean-up of the image cache: what nothing refers to, then the least recently used images. Never what is in use."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from metalmark.model import GIB, Digest
from metalmark.oci.cache import CachedImage, ImageCache
from metalmark.system import locked

DEFAULT_MAX_BYTES = 20 * GIB
"""What the images of a cache may take before a pull cleans up."""


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What a clean-up did, or would do."""

    removed: tuple[CachedImage, ...]
    """Images, least recently used first."""
    freed_bytes: int
    kept_bytes: int
    in_use: int
    """Images that live processes use."""


def collect(cache: ImageCache, *, max_bytes: int, dry_run: bool = False) -> Collected:
    """Remove blobs that no image has, then images until the rest is small enough. Blocking.

    Args:
        cache: The cache.
        max_bytes: What may stay; 0 removes everything that is not in use.
        dry_run: Only say what would be done.
    """
    if not cache.images.is_dir():
        return Collected(removed=(), freed_bytes=0, kept_bytes=0, in_use=0)
    cache.prepare()
    cache.sweep()
    cache.sweep_documents()
    with locked(cache.images / "lock"):
        protected = cache.protected()
        images = cache.images_held()
        sizes = {digest: path.stat().st_size for digest, path in cache.stored()}
        used = [image for image in images if image.record.digest in protected]
        kept = [image for image in images if image.record.digest not in protected]
        removed: list[CachedImage] = []
        needed = _needed((*used, *kept), protected)
        while kept and _total(needed, sizes) > max_bytes:
            removed.append(kept.pop())
            needed = _needed((*used, *kept), protected)
        doomed = sizes.keys() - needed
        if not dry_run:
            for image in removed:
                for path in image.files:
                    path.unlink(missing_ok=True)
                    _remove_if_empty(path.parent)
            for digest in doomed:
                cache.forget(digest)
    return Collected(
        removed=tuple(removed),
        freed_bytes=sum(sizes[digest] for digest in doomed),
        kept_bytes=_total(needed, sizes),
        in_use=len(used),
    )


def _needed(images: Iterable[CachedImage], protected: frozenset[Digest]) -> frozenset[Digest]:
    return protected.union(*(image.record.blobs for image in images))


def _total(digests: Iterable[Digest], sizes: dict[Digest, int]) -> int:
    return sum(sizes.get(digest, 0) for digest in digests)


def _remove_if_empty(folder: Path) -> None:
    if not any(folder.iterdir()):
        folder.rmdir()
