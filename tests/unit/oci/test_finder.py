from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from metalmark.model import Digest, DigestMismatch, NotAnImage, Platform, WrongPlatform
from metalmark.oci import ResolvedImage
from metalmark.testing.images import OCI_INDEX, OCI_MANIFEST, FakeImage, FakeLayer, index_of, write_layout

pytestmark = pytest.mark.anyio
Take = Callable[..., Awaitable[ResolvedImage]]


@pytest.mark.parametrize("which", ["manifest", "config"])
async def test_a_document_that_was_changed_is_found_out(take: Take, tmp_path: Path, which: str) -> None:
    image = FakeImage()
    layout = write_layout(tmp_path / "l", image)
    digest = image.manifest if which == "manifest" else next(iter(image.blobs))
    path = layout / "blobs/sha256" / digest.hex
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(DigestMismatch, match=str(digest)):
        await take(layout)


async def test_the_platform_is_chosen_through_nested_indexes(take: Take, tmp_path: Path, base: FakeLayer) -> None:
    amd64, arm64 = FakeImage(layers=[base]), FakeImage(architecture="arm64", variant="v8")
    attestation = {
        **FakeImage(config={"Cmd": ["no"]}).descriptor(),
        "platform": {"os": "unknown", "architecture": "unknown"},
    }
    inner = index_of([attestation, arm64.descriptor(platform=True), amd64.descriptor(platform=True)])
    outer = index_of([{"mediaType": OCI_INDEX, "digest": str(Digest.of(inner)), "size": len(inner)}])
    layout = write_layout(tmp_path / "l", amd64, arm64, index=outer, blobs={Digest.of(inner): inner})
    assert (await take(layout)).digest == amd64.manifest
    found = await take(layout, Platform.parse("linux/arm64"))
    assert (found.digest, found.platform) == (arm64.manifest, Platform("linux", "arm64", "v8"))
    again = await take(layout)
    assert (again.digest, again.cached) == (amd64.manifest, True)
    with pytest.raises(WrongPlatform, match="linux/arm64/v8") as caught:
        await take(layout, Platform.parse("linux/riscv64"))
    assert "linux/amd64" in str(caught.value)


async def test_a_single_image_for_another_platform_is_refused(take: Take, tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "l", FakeImage(architecture="arm64"))
    with pytest.raises(WrongPlatform, match="linux/arm64"):
        await take(layout)


async def test_an_index_that_lies_about_the_platform_is_found_out(take: Take, tmp_path: Path) -> None:
    image = FakeImage(architecture="arm64")
    lie = {**image.descriptor(), "platform": {"os": "linux", "architecture": "amd64"}}
    with pytest.raises(WrongPlatform):
        await take(write_layout(tmp_path / "l", image, index=index_of([lie, lie])))


async def test_indexes_that_nest_too_deep_or_branch_too_much_are_refused(take: Take, tmp_path: Path) -> None:
    blobs: dict[Digest, bytes] = {}

    def entry(data: bytes) -> dict[str, object]:
        blobs[Digest.of(data)] = data
        return {"mediaType": OCI_INDEX, "digest": str(Digest.of(data)), "size": len(data)}

    top = index_of([])
    for _ in range(8):
        top = index_of([entry(top)])
    with pytest.raises(NotAnImage, match="deep"):
        await take(write_layout(tmp_path / "deep", index=top, blobs=blobs))
    foreign = {"mediaType": OCI_MANIFEST, "size": 1, "platform": {"os": "linux", "architecture": "s390x"}}
    inner = [index_of([{**foreign, "digest": str(Digest.of(b"%d" % number))}]) for number in range(100)]
    wide = index_of([entry(data) for data in inner])
    with pytest.raises(NotAnImage, match="documents"):
        await take(write_layout(tmp_path / "wide", index=wide, blobs=blobs))


async def test_layers_and_diff_ids_must_match_in_number(take: Take, tmp_path: Path, base: FakeLayer) -> None:
    short = FakeImage(layers=[base], configuration_fields={"rootfs": {"type": "layers", "diff_ids": []}})
    with pytest.raises(NotAnImage, match="layers"):
        await take(write_layout(tmp_path / "l", short))
