from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from metalmark.model import ImageNotFound, NotAnImage
from metalmark.oci import Compression, ResolvedImage
from metalmark.testing.images import FakeLayer, tar_of

pytestmark = pytest.mark.anyio
Take = Callable[..., Awaitable[ResolvedImage]]
TAR = tar_of({"bin/a": b"a" * 3000})


def docker_files(*layers: FakeLayer, link: bool = False) -> tuple[dict[str, bytes], bytes]:
    configuration = json.dumps(
        {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/x"]},
         "rootfs": {"type": "layers", "diff_ids": [str(layer.diff_id) for layer in layers]}}
    ).encode()  # fmt: skip
    files = {f"{number}/layer.tar": layer.blob for number, layer in enumerate(layers)}
    manifest = json.dumps([{"Config": "c.json", "RepoTags": ["team/app:1"], "Layers": list(files)}]).encode()
    return {**files, "c.json": configuration, "manifest.json": manifest}, configuration


async def test_a_docker_archive_packed_and_unpacked_is_the_same_image(
    take: Take, tmp_path: Path, base: FakeLayer
) -> None:
    files, _ = docker_files(FakeLayer.plain(TAR), base)
    (tmp_path / "saved.tar").write_bytes(tar_of(files))
    for name, data in files.items():
        path = tmp_path / "saved" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    packed = await take(tmp_path / "saved.tar")
    assert [layer.diff_id for layer in packed.layers] == [base.diff_id, base.diff_id]
    assert [layer.compression for layer in packed.layers] == [Compression.NONE, Compression.GZIP]
    unpacked = await take(f"docker-archive:{tmp_path / 'saved'}:team/app:1")
    assert (unpacked.digest, unpacked.cached, unpacked.config.cmd) == (packed.digest, True, ("/x",))
    with pytest.raises(ImageNotFound, match="team/app:1"):
        await take(f"docker-archive:{tmp_path / 'saved.tar'}:team/app:2")


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
async def test_a_hostile_docker_manifest_is_refused(take: Take, tmp_path: Path, manifest: bytes) -> None:
    files, _ = docker_files(FakeLayer.plain(TAR))
    files["manifest.json"] = manifest
    (tmp_path / "saved.tar").write_bytes(tar_of(files))
    with pytest.raises((NotAnImage, ImageNotFound)):
        await take(tmp_path / "saved.tar")


async def test_layers_of_old_docker_archives_may_be_links_to_each_other(take: Take, tmp_path: Path) -> None:
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
    assert len((await take(path)).layers) == 2
    for name in ("loop", "out"):
        bad = tmp_path / f"{name}.tar"
        bad.write_bytes(stream.getvalue().replace(b'"Config": "c.json"', f'"Config": "{name:6}"'.encode()))
        with pytest.raises(NotAnImage):
            await take(bad)
