from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from metalmark.model import Digest, InputError, Platform
from metalmark.oci.packed_output import PackedBlobs, write_archive, write_layout


@pytest.fixture
def blobs(tmp_path: Path) -> PackedBlobs:
    layer = tmp_path / "layer"
    layer.write_bytes(b"layer")
    documents = {Digest.of(data): data for data in (b"manifest", b"config")}
    return PackedBlobs(
        tag="v1",
        platform=Platform("linux", "arm64", "v8"),
        manifest=Digest.of(b"manifest"),
        config=Digest.of(b"config"),
        layer=Digest.of(b"layer"),
        documents=documents,
        layer_file=layer,
        layer_bytes=5,
    )


def test_an_archive_is_a_layout_and_a_docker_archive(blobs: PackedBlobs, tmp_path: Path) -> None:
    write_archive(tmp_path / "a.tar", blobs)
    with tarfile.open(tmp_path / "a.tar") as archive:
        files = {member.name: member for member in archive}
        read = {name: archive.extractfile(name) for name, member in files.items() if member.isreg()}
        content = {name: stream.read() for name, stream in read.items() if stream is not None}
    index = json.loads(content["index.json"])
    assert index["manifests"][0]["platform"] == {"os": "linux", "architecture": "arm64", "variant": "v8"}
    (docker,) = json.loads(content["manifest.json"])
    assert content[docker["Config"]] == b"config"
    assert content[docker["Layers"][0]] == b"layer"
    assert docker["RepoTags"] == ["metalmark/image:v1"]
    assert {member.mtime for member in files.values()} == {0}


def test_a_layout_of_somebody_else_gains_an_image(blobs: PackedBlobs, tmp_path: Path) -> None:
    write_layout(tmp_path / "l", blobs)
    foreign = {"mediaType": "x/y", "digest": "sha256:" + "0" * 64, "size": 3, "strange": [1]}
    path = tmp_path / "l/index.json"
    path.write_text(json.dumps({"schemaVersion": 2, "manifests": [foreign]}))
    write_layout(tmp_path / "l", blobs)
    assert json.loads(path.read_text())["manifests"][0] == foreign
    assert len(json.loads(path.read_text())["manifests"]) == 2
    assert (tmp_path / "l/blobs/sha256" / blobs.layer.hex).stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("index", ["", "[]", '{"manifests": 3}'])
def test_a_damaged_layout_is_left_alone(blobs: PackedBlobs, tmp_path: Path, index: str) -> None:
    write_layout(tmp_path / "l", blobs)
    (tmp_path / "l/index.json").write_text(index)
    with pytest.raises(InputError, match="not an OCI layout"):
        write_layout(tmp_path / "l", blobs)
    assert (tmp_path / "l/index.json").read_text() == index
