"""Images pulled from local paths into a cache of the test's own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from metalmark.model import Platform
from metalmark.oci import ImageCache, ResolvedImage, parse_source, pull
from metalmark.testing.images import FakeLayer, tar_of

AMD64 = Platform("linux", "amd64")


@pytest.fixture
def base() -> FakeLayer:
    """A small layer packed with gzip."""
    return FakeLayer.gzipped(tar_of({"bin/a": b"a" * 3000}))


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[ImageCache]:
    with ImageCache(tmp_path / "cache") as cache:
        yield cache


@pytest.fixture
def take(cache: ImageCache) -> Callable[..., Awaitable[ResolvedImage]]:
    async def take(text: object, platform: Platform = AMD64, **options: object) -> ResolvedImage:
        return await pull(parse_source(str(text)), cache=cache, platform=platform, **options)  # type: ignore[arg-type]

    return take
