"""The content-addressed cache of images."""

from __future__ import annotations

from pathlib import Path


class ImageCache:
    """Images on this machine, below ``folder/images``; ``folder/rootfs`` beside it belongs to the root file systems.

    Args:
        folder: The cache folder (`metalmark.system.Folders.cache`); made when missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def close(self) -> None:
        """Give up the protection from clean-up of every image that was pulled through this object."""
