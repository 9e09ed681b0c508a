from __future__ import annotations

import os
import tarfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from metalmark.model import Digest, NotAnImage
from metalmark.oci import ResolvedImage
from metalmark.testing.images import FakeImage, FakeLayer, write_layout

pytestmark = pytest.mark.anyio
Take = Callable[..., Awaitable[ResolvedImage]]


async def test_a_blob_that_links_out_of_the_layout_is_not_read(take: Take, tmp_path: Path, base: FakeLayer) -> None:
    image = FakeImage(layers=[base])
    layout = write_layout(tmp_path / "l", image)
    path = layout / "blobs/sha256" / Digest.of(base.blob).hex
    outside = tmp_path / "outside"
    path.rename(outside)
    path.symlink_to(outside)
    with pytest.raises(NotAnImage, match="inside"):
        await take(layout)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(NotAnImage, match="regular"):
        await take(layout)
    path.unlink()
    (layout / "moved").write_bytes(base.blob)
    path.symlink_to("../../moved")
    assert (await take(layout)).digest == image.manifest


def damaged_headers() -> dict[str, bytes]:
    """Tar files that Python's reader goes round in, or falls over."""
    plain = tarfile.TarInfo("a").tobuf(tarfile.USTAR_FORMAT)
    return {
        "size below zero": plain + checked(plain[:124] + (2**96 - 4096).to_bytes(12, "big") + plain[136:]),
        "headers of headers": checked(plain[:156] + b"x" + plain[157:]) * 4000 + plain,
    }


def checked(block: bytes) -> bytes:
    """The header block with a right checksum."""
    spaced = block[:148] + b" " * 8 + block[156:]
    return spaced[:148] + b"%06o\0 " % sum(spaced) + spaced[156:]


@pytest.mark.parametrize("name", damaged_headers())
async def test_a_damaged_archive_is_refused(take: Take, tmp_path: Path, name: str) -> None:
    (tmp_path / "image.tar").write_bytes(damaged_headers()[name] + bytes(10240))
    with pytest.raises(NotAnImage):
        await take(tmp_path / "image.tar")
