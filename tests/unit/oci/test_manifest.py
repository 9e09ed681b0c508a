from __future__ import annotations

import json

import pytest

from metalmark.model import ImageError, NotAnImage, UnsupportedImage
from metalmark.oci import media
from metalmark.oci.manifest import Index, Manifest, read_document
from metalmark.testing.images import FakeImage, FakeLayer, index_of

DIGEST = "sha256:" + "ab" * 32


def manifest(**fields: object) -> bytes:
    image = FakeImage(layers=[FakeLayer.gzipped(b"x")], manifest_fields=fields)
    return image.blobs[image.manifest]


def layer(media_type: str = media.OCI_LAYER, **fields: object) -> list[dict[str, object]]:
    return [{"mediaType": media_type, "digest": DIGEST, "size": 3, **fields}]


def test_reads_oci_and_docker_manifests() -> None:
    read = read_document(manifest(), what="it")
    assert isinstance(read, Manifest)
    assert read.layers[0].media_type == "application/vnd.oci.image.layer.v1.tar+gzip"
    docker = manifest(
        mediaType=media.DOCKER_MANIFEST,
        config={"mediaType": media.DOCKER_CONFIG, "digest": DIGEST, "size": 2},
        layers=layer("application/vnd.docker.image.rootfs.diff.tar.gzip"),
    )
    assert isinstance(read_document(docker, media_type=media.DOCKER_MANIFEST, what="it"), Manifest)


def test_the_announced_type_decides_when_the_document_says_none() -> None:
    silent = manifest(mediaType=None)
    assert isinstance(read_document(silent, what="it"), Manifest)
    assert isinstance(read_document(silent, media_type=f"{media.OCI_MANIFEST}; charset=utf-8", what="it"), Manifest)
    assert isinstance(read_document(index_of([FakeImage().descriptor(platform=True)]), what="it"), Index)


@pytest.mark.parametrize(
    "fields",
    [
        {"manifests": []},
        {"manifests": [{}], "mediaType": media.OCI_INDEX},
    ],
)
def test_one_document_cannot_be_two_things(fields: dict[str, object]) -> None:
    with pytest.raises(NotAnImage):
        read_document(manifest(**fields) if fields["manifests"] else manifest(manifests=[{}]), what="it")


def test_an_announcement_that_contradicts_the_document_is_refused() -> None:
    with pytest.raises(NotAnImage, match="announced"):
        read_document(manifest(), media_type=media.DOCKER_MANIFEST, what="it")


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
        "application/vnd.oci.image.layer.v1.tar+xz",
        "text/plain",
        "",
    ],
)
def test_layers_that_cannot_be_run_are_refused_by_name(media_type: str) -> None:
    with pytest.raises(UnsupportedImage, match=DIGEST):
        read_document(manifest(layers=layer(media_type)), what="it")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"layers": layer(digest=DIGEST.upper())}, r"layers\[0\]\.digest"),
        ({"layers": layer(digest="sha256:" + "AB" * 32)}, r"layers\[0\]\.digest"),
        ({"layers": layer(digest="sha256:../../etc/passwd")}, r"layers\[0\]\.digest"),
        ({"layers": layer(digest=None)}, r"layers\[0\]\.digest"),
        ({"layers": layer(size=-1)}, r"layers\[0\]\.size"),
        ({"layers": layer(size=True)}, r"layers\[0\]\.size"),
        ({"layers": layer(size=1.5)}, r"layers\[0\]\.size"),
        ({"layers": layer(size="3")}, r"layers\[0\]\.size"),
        ({"layers": layer(size=2**63)}, r"layers\[0\]\.size"),
        ({"layers": layer() * 1025}, "layers"),
        ({"layers": {"0": 1}}, "layers"),
        ({"layers": [3]}, r"layers\[0\]"),
        ({"config": {"mediaType": media.OCI_CONFIG, "digest": DIGEST, "size": 1 << 30}}, r"config\.size"),
        ({"config": [], "layers": []}, "config"),
    ],
)
def test_a_malformed_field_is_named(fields: dict[str, object], named: str) -> None:
    with pytest.raises(NotAnImage, match=named):
        read_document(manifest(**fields), what="it")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"3",
        b'"x"',
        b"[]",
        b"{}",
        b"{",
        b"\xff\xfe",
        b'{"schemaVersion": 2}',
        b'{"mediaType": NaN}',
        b'{"mediaType": "a", "mediaType": "b"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"9" * 100_000,
        json.dumps({"mediaType": "application/vnd.cncf.helm.config.v1+json"}).encode(),
    ],
)
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(NotAnImage):
        read_document(data, what="it")


def test_schema_1_and_artifacts_are_told_for_what_they_are() -> None:
    with pytest.raises(UnsupportedImage, match="schema 1"):
        read_document(b'{"schemaVersion": 1, "fsLayers": []}', what="it")
    artifact = manifest(config={"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": DIGEST, "size": 2})
    with pytest.raises(NotAnImage, match=r"artifact.*helm"):
        read_document(artifact, what="it")


def test_control_characters_of_strangers_do_not_reach_the_message() -> None:
    with pytest.raises(ImageError) as caught:
        read_document(manifest(layers=layer("\x1b[31mred" + "x" * 500)), what="it")
    assert "\x1b" not in str(caught.value)
    with pytest.raises(ImageError) as digest:
        read_document(manifest(layers=layer(digest="\x1b]0;title\x07" + "y" * 5000)), what="it")
    assert "\x1b" not in str(digest.value)
    assert len(str(digest.value)) < 400
