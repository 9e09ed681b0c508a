from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from metalmark.model import (
    Digest,
    DigestMismatch,
    ImageNotFound,
    InputError,
    LayerRefused,
    MetalmarkError,
    NotAnImage,
    Platform,
    Progress,
    UnsupportedImage,
    WrongPlatform,
)
from metalmark.oci import Compression, ImageCache, ResolvedImage, parse_source, pull
from metalmark.testing.images import (
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    FakeImage,
    FakeLayer,
    index_of,
    tar_of,
    write_layout,
)

pytestmark = pytest.mark.anyio
AMD64 = Platform("linux", "amd64")
TAR = tar_of({"bin/a": b"a" * 3000})
BASE = FakeLayer.gzipped(TAR)


@pytest.fixture
def cache(tmp_path: Path) -> ImageCache:
    return ImageCache(tmp_path / "cache")


async def take(cache: ImageCache, text: object, platform: Platform = AMD64, **options: object) -> ResolvedImage:
    return await pull(parse_source(str(text)), cache=cache, platform=platform, **options)  # type: ignore[arg-type]


def stored(cache: ImageCache) -> set[Digest]:
    return {digest for digest, _ in cache.stored()}


def litter(cache: ImageCache) -> list[Path]:
    partial = cache.images / "partial"
    return [*partial.iterdir(), *cache.images.rglob("*.partial")] if partial.is_dir() else []


async def test_a_layout_comes_in_whole_and_verified(cache: ImageCache, tmp_path: Path) -> None:
    second = FakeLayer.plain(tar_of({"b": b"b"}))
    image = FakeImage(layers=[BASE, second], config={"Cmd": ["/bin/a"], "Env": ["A=1"]})
    events: list[Progress] = []
    found = await take(cache, write_layout(tmp_path / "l", image), progress=events.append)
    assert found.digest == image.manifest
    assert not found.cached
    assert found.config.cmd == ("/bin/a",)
    assert [layer.diff_id for layer in found.layers] == [BASE.diff_id, second.diff_id]
    assert [layer.compression for layer in found.layers] == [Compression.GZIP, Compression.NONE]
    assert [layer.path.read_bytes() for layer in found.layers] == [BASE.blob, second.blob]
    assert stored(cache) == set(image.blobs)
    assert {event.task for event in events if event.finished and event.done == event.total} == {
        event.task for event in events
    }
    assert not litter(cache)


async def test_a_second_time_nothing_is_read_but_the_index(cache: ImageCache, tmp_path: Path) -> None:
    image = FakeImage(layers=[BASE])
    layout = write_layout(tmp_path / "l", image)
    first = await take(cache, layout)
    (layout / "blobs/sha256" / Digest.of(BASE.blob).hex).unlink()
    second = await take(cache, layout)
    assert second.cached
    assert second.layers == first.layers


async def test_a_layer_that_two_images_share_is_stored_once_and_not_verified_again(
    cache: ImageCache, tmp_path: Path
) -> None:
    await take(cache, write_layout(tmp_path / "a", FakeImage(layers=[BASE])))
    other = write_layout(tmp_path / "b", FakeImage(layers=[BASE, BASE], config={"Cmd": ["other"]}))
    (other / "blobs/sha256" / Digest.of(BASE.blob).hex).unlink()
    found = await take(cache, other)
    assert len(found.layers) == 2
    assert not found.cached


async def test_a_cached_layer_of_which_nothing_is_remembered_is_verified_again(
    cache: ImageCache, tmp_path: Path
) -> None:
    found = await take(cache, write_layout(tmp_path / "a", FakeImage(layers=[BASE])))
    (facts,) = (cache.images / "layers/sha256").iterdir()
    facts.unlink()
    wrong = FakeLayer(blob=BASE.blob, diff_id=Digest.of(b"else"), media_type=BASE.media_type)
    with pytest.raises(DigestMismatch, match="unpacks to"):
        await take(cache, write_layout(tmp_path / "b", FakeImage(layers=[wrong])))
    again = await take(cache, write_layout(tmp_path / "c", FakeImage(layers=[BASE], config={"Cmd": ["x"]})))
    assert again.layers == found.layers


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        (FakeLayer(blob=BASE.blob, diff_id=Digest.of(b"else"), media_type=BASE.media_type), DigestMismatch),
        (FakeLayer(blob=BASE.blob[:-20], diff_id=BASE.diff_id, media_type=BASE.media_type), LayerRefused),
        (FakeLayer(blob=b"\x1f\x8b" + bytes(100), diff_id=BASE.diff_id), LayerRefused),
        (FakeLayer(blob=b"", diff_id=BASE.diff_id), DigestMismatch),
    ],
)
async def test_a_layer_that_is_not_what_it_says_is_named_and_leaves_nothing(
    cache: ImageCache, tmp_path: Path, broken: FakeLayer, error: type[MetalmarkError]
) -> None:
    with pytest.raises(error, match=str(Digest.of(broken.blob))):
        await take(cache, write_layout(tmp_path / "l", FakeImage(layers=[broken])))
    assert Digest.of(broken.blob) not in stored(cache)
    assert not litter(cache)
    assert not cache.images_held()


@pytest.mark.parametrize("damage", [b"x" * len(BASE.blob), BASE.blob + b"\0", BASE.blob[:-1], b""])
async def test_a_local_blob_that_was_changed_is_found_out(cache: ImageCache, tmp_path: Path, damage: bytes) -> None:
    layout = write_layout(tmp_path / "l", FakeImage(layers=[BASE]))
    (layout / "blobs/sha256" / Digest.of(BASE.blob).hex).write_bytes(damage)
    with pytest.raises((DigestMismatch, LayerRefused), match=str(Digest.of(BASE.blob))):
        await take(cache, layout)
    assert not litter(cache)


@pytest.mark.parametrize("which", ["manifest", "config"])
async def test_a_document_that_was_changed_is_found_out(cache: ImageCache, tmp_path: Path, which: str) -> None:
    image = FakeImage()
    layout = write_layout(tmp_path / "l", image)
    digest = image.manifest if which == "manifest" else next(iter(image.blobs))
    path = layout / "blobs/sha256" / digest.hex
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(DigestMismatch, match=str(digest)):
        await take(cache, layout)


@pytest.mark.parametrize("what", ["blobs", "index.json"])
async def test_a_missing_part_is_named(cache: ImageCache, tmp_path: Path, what: str) -> None:
    image = FakeImage(layers=[BASE])
    layout = write_layout(tmp_path / "l", image)
    source = parse_source(str(layout))
    if what == "blobs":
        (layout / "blobs/sha256" / Digest.of(BASE.blob).hex).unlink()
    else:
        (layout / "index.json").unlink()
    with pytest.raises(NotAnImage, match=what):
        await pull(source, cache=cache, platform=AMD64)


async def test_a_blob_that_links_out_of_the_layout_is_not_read(cache: ImageCache, tmp_path: Path) -> None:
    image = FakeImage(layers=[BASE])
    layout = write_layout(tmp_path / "l", image)
    path = layout / "blobs/sha256" / Digest.of(BASE.blob).hex
    outside = tmp_path / "outside"
    path.rename(outside)
    path.symlink_to(outside)
    with pytest.raises(NotAnImage, match="inside"):
        await take(cache, layout)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(NotAnImage, match="regular"):
        await take(cache, layout)
    path.unlink()
    (layout / "moved").write_bytes(BASE.blob)
    path.symlink_to("../../moved")
    assert (await take(cache, layout)).digest == image.manifest


async def test_another_layout_version_is_refused(cache: ImageCache, tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "l", FakeImage())
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "2.0.0"}')
    with pytest.raises(NotAnImage, match="imageLayoutVersion"):
        await take(cache, layout)


async def test_of_several_images_one_is_chosen_by_name_or_digest(cache: ImageCache, tmp_path: Path) -> None:
    one, two = FakeImage(config={"Cmd": ["1"]}), FakeImage(config={"Cmd": ["2"]})
    layout = write_layout(
        tmp_path / "l", one, two, index=index_of([one.descriptor(tag="v1"), two.descriptor(tag="v2")])
    )
    assert (await take(cache, f"oci:{layout}:v2")).digest == two.manifest
    assert (await take(cache, f"{layout}@{one.manifest}")).digest == one.manifest
    with pytest.raises(InputError, match="several images: 'v1', 'v2'"):
        await take(cache, layout)
    with pytest.raises(ImageNotFound, match=r"no image 'v3'.*'v1', 'v2'"):
        await take(cache, f"oci:{layout}:v3")
    with pytest.raises(ImageNotFound, match="no image"):
        await take(cache, write_layout(tmp_path / "empty", index=index_of([])))


async def test_the_platform_is_chosen_through_nested_indexes(cache: ImageCache, tmp_path: Path) -> None:
    amd64, arm64 = FakeImage(layers=[BASE]), FakeImage(architecture="arm64", variant="v8")
    attestation = {
        **FakeImage(config={"Cmd": ["no"]}).descriptor(),
        "platform": {"os": "unknown", "architecture": "unknown"},
    }
    inner = index_of([attestation, arm64.descriptor(platform=True), amd64.descriptor(platform=True)])
    outer = index_of([{"mediaType": OCI_INDEX, "digest": str(Digest.of(inner)), "size": len(inner)}])
    layout = write_layout(tmp_path / "l", amd64, arm64, index=outer, blobs={Digest.of(inner): inner})
    assert (await take(cache, layout)).digest == amd64.manifest
    found = await take(cache, layout, Platform.parse("linux/arm64"))
    assert (found.digest, found.platform) == (arm64.manifest, Platform("linux", "arm64", "v8"))
    again = await take(cache, layout)
    assert (again.digest, again.cached) == (amd64.manifest, True)
    with pytest.raises(WrongPlatform, match="linux/arm64/v8") as caught:
        await take(cache, layout, Platform.parse("linux/riscv64"))
    assert "linux/amd64" in str(caught.value)


async def test_a_single_image_for_another_platform_is_refused(cache: ImageCache, tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "l", FakeImage(architecture="arm64"))
    with pytest.raises(WrongPlatform, match="linux/arm64"):
        await take(cache, layout)


async def test_an_index_that_lies_about_the_platform_is_found_out(cache: ImageCache, tmp_path: Path) -> None:
    image = FakeImage(architecture="arm64")
    lie = {**image.descriptor(), "platform": {"os": "linux", "architecture": "amd64"}}
    with pytest.raises(WrongPlatform):
        await take(cache, write_layout(tmp_path / "l", image, index=index_of([lie, lie])))


async def test_indexes_that_nest_too_deep_or_branch_too_much_are_refused(cache: ImageCache, tmp_path: Path) -> None:
    blobs: dict[Digest, bytes] = {}

    def entry(data: bytes) -> dict[str, object]:
        blobs[Digest.of(data)] = data
        return {"mediaType": OCI_INDEX, "digest": str(Digest.of(data)), "size": len(data)}

    top = index_of([])
    for _ in range(8):
        top = index_of([entry(top)])
    with pytest.raises(NotAnImage, match="deep"):
        await take(cache, write_layout(tmp_path / "deep", index=top, blobs=blobs))
    foreign = {"mediaType": OCI_MANIFEST, "size": 1, "platform": {"os": "linux", "architecture": "s390x"}}
    inner = [index_of([{**foreign, "digest": str(Digest.of(b"%d" % number))}]) for number in range(100)]
    wide = index_of([entry(data) for data in inner])
    with pytest.raises(NotAnImage, match="documents"):
        await take(cache, write_layout(tmp_path / "wide", index=wide, blobs=blobs))


async def test_foreign_layers_are_refused_before_anything_is_fetched(cache: ImageCache, tmp_path: Path) -> None:
    foreign = FakeLayer(
        blob=BASE.blob, diff_id=BASE.diff_id, media_type="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    )
    with pytest.raises(UnsupportedImage, match="foreign"):
        await take(cache, write_layout(tmp_path / "l", FakeImage(layers=[foreign])))
    assert not stored(cache)


async def test_layers_and_diff_ids_must_match_in_number(cache: ImageCache, tmp_path: Path) -> None:
    short = FakeImage(layers=[BASE], configuration_fields={"rootfs": {"type": "layers", "diff_ids": []}})
    with pytest.raises(NotAnImage, match="layers"):
        await take(cache, write_layout(tmp_path / "l", short))


async def test_a_wrong_size_in_the_manifest_is_found_out(cache: ImageCache, tmp_path: Path) -> None:
    digest = str(Digest.of(BASE.blob))
    for size in (len(BASE.blob) - 1, len(BASE.blob) + 1):
        image = FakeImage(
            layers=[BASE], manifest_fields={"layers": [{"mediaType": OCI_LAYER, "digest": digest, "size": size}]}
        )
        with pytest.raises(DigestMismatch, match=digest):
            await take(cache, write_layout(tmp_path / str(size), image))


def docker_files(*layers: FakeLayer, link: bool = False) -> tuple[dict[str, bytes], bytes]:
    configuration = json.dumps(
        {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/x"]},
         "rootfs": {"type": "layers", "diff_ids": [str(layer.diff_id) for layer in layers]}}
    ).encode()  # fmt: skip
    files = {f"{number}/layer.tar": layer.blob for number, layer in enumerate(layers)}
    manifest = json.dumps([{"Config": "c.json", "RepoTags": ["team/app:1"], "Layers": list(files)}]).encode()
    return {**files, "c.json": configuration, "manifest.json": manifest}, configuration


async def test_a_docker_archive_packed_and_unpacked_is_the_same_image(cache: ImageCache, tmp_path: Path) -> None:
    files, _ = docker_files(FakeLayer.plain(TAR), BASE)
    (tmp_path / "saved.tar").write_bytes(tar_of(files))
    for name, data in files.items():
        path = tmp_path / "saved" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    packed = await take(cache, tmp_path / "saved.tar")
    assert [layer.diff_id for layer in packed.layers] == [BASE.diff_id, BASE.diff_id]
    assert [layer.compression for layer in packed.layers] == [Compression.NONE, Compression.GZIP]
    unpacked = await take(cache, f"docker-archive:{tmp_path / 'saved'}:team/app:1")
    assert (unpacked.digest, unpacked.cached, unpacked.config.cmd) == (packed.digest, True, ("/x",))
    with pytest.raises(ImageNotFound, match="team/app:1"):
        await take(cache, f"docker-archive:{tmp_path / 'saved.tar'}:team/app:2")


@pytest.mark.parametrize(
    "manifest",
    [
        b"[]",
        b"{}",
        b"[3]",
        b'[{"Config": "../../etc/passwd", "Layers": []}]',
        b'[{"Config": "/etc/passwd", "Layers": []}]',
        b'[{"Config": "c.json", "Layers": ["../layer.tar"]}]',
        b'[{"Config": "c.json", "Layers": []}]',
        b'[{"Layers": []}]',
    ],
)
async def test_a_hostile_docker_manifest_is_refused(cache: ImageCache, tmp_path: Path, manifest: bytes) -> None:
    files, _ = docker_files(FakeLayer.plain(TAR))
    files["manifest.json"] = manifest
    (tmp_path / "saved.tar").write_bytes(tar_of(files))
    with pytest.raises((NotAnImage, ImageNotFound)):
        await take(cache, tmp_path / "saved.tar")


async def test_layers_of_old_docker_archives_may_be_links_to_each_other(cache: ImageCache, tmp_path: Path) -> None:
    import io
    import tarfile

    files, _ = docker_files(FakeLayer.plain(TAR), FakeLayer.plain(TAR))
    del files["1/layer.tar"]
    stream = io.BytesIO(tar_of(files))
    with tarfile.open(fileobj=stream, mode="a") as archive:
        link = tarfile.TarInfo("1/layer.tar")
        link.type, link.linkname = tarfile.SYMTYPE, "../0/layer.tar"
        archive.addfile(link)
        for name, target in (("loop", "loop"), ("out", "../../etc/passwd")):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            archive.addfile(link)
    path = tmp_path / "saved.tar"
    path.write_bytes(stream.getvalue())
    assert len((await take(cache, path)).layers) == 2
    for name in ("loop", "out"):
        bad = tmp_path / f"{name}.tar"
        bad.write_bytes(stream.getvalue().replace(b'"Config": "c.json"', f'"Config": "{name:6}"'.encode()))
        with pytest.raises(NotAnImage):
            await take(cache, bad)


async def test_many_images_under_one_digest_reference_need_no_origin(cache: ImageCache, tmp_path: Path) -> None:
    image = FakeImage(layers=[BASE])
    await take(cache, write_layout(tmp_path / "l", image))
    # The host does not exist: only the cache can answer.
    found = await take(cache, f"registry.invalid/app@{image.manifest}")
    assert found.cached
    assert found.reference == f"docker://registry.invalid/app@{image.manifest}"


async def test_no_image_record_survives_a_lost_blob(cache: ImageCache, tmp_path: Path) -> None:
    image = FakeImage(layers=[BASE])
    layout = write_layout(tmp_path / "l", image)
    found = await take(cache, layout)
    found.layers[0].path.unlink()
    again = await take(cache, layout)
    assert not again.cached
    assert again.layers[0].path.read_bytes() == BASE.blob
    again.layers[0].path.write_bytes(b"short")
    assert (await take(cache, layout)).layers[0].path.read_bytes() == BASE.blob
