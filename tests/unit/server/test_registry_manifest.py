"""Manifests as documents: what is read of one, and that nothing odd gets further than a refusal."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalmark.model import Digest
from metalmark.server.registry_errors import RegistryFault
from metalmark.server.registry_manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    parse_manifest,
)

A, B = str(Digest.of(b"a")), str(Digest.of(b"b", "sha512"))
LAYER = "application/vnd.oci.image.layer.v1.tar"


def entry(digest: str = A, media_type: str = LAYER, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": 1, **more}


def image(**more: Any) -> bytes:
    return json.dumps({"schemaVersion": 2, "config": entry(A, "text/config"), "layers": [entry(B)], **more}).encode()


def refused(content: bytes, content_type: str | None = None) -> str:
    with pytest.raises(RegistryFault) as error:
        parse_manifest(content, content_type)
    assert (error.value.code, error.value.status) == ("MANIFEST_INVALID", 400)
    return str(error.value)


def test_an_image_names_its_blobs() -> None:
    found = parse_manifest(image(mediaType=OCI_MANIFEST), f"{OCI_MANIFEST}; charset=utf-8")
    assert (found.blobs, found.children, found.artifact_type) == ({A: 1, B: 1}, {}, "text/config")
    assert parse_manifest(image(artifactType="x/y"), None).artifact_type == "x/y"


def test_an_index_names_manifests_and_blobs() -> None:
    entries = [entry(A, DOCKER_MANIFEST), entry(B, LAYER)]
    found = parse_manifest(json.dumps({"schemaVersion": 2, "manifests": entries}).encode(), DOCKER_LIST)
    assert (found.media_type, found.children, found.blobs, found.artifact_type) == (DOCKER_LIST, {A: 1}, {B: 1}, None)


@pytest.mark.parametrize(
    ("own", "said", "expected"),
    [
        (None, None, OCI_MANIFEST),
        (None, DOCKER_MANIFEST, DOCKER_MANIFEST),
        (DOCKER_MANIFEST, None, DOCKER_MANIFEST),
        (OCI_MANIFEST, OCI_MANIFEST.upper(), OCI_MANIFEST),
    ],
)
def test_its_kind_is_said_by_the_document_or_the_request(own: str | None, said: str | None, expected: str) -> None:
    assert parse_manifest(image(**({"mediaType": own} if own else {})), said).media_type == expected


def test_what_is_elsewhere_is_not_needed() -> None:
    foreign = entry(B, "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip")
    assert parse_manifest(image(layers=[foreign]), None).blobs == {A: 1}


def test_two_readings_are_refused() -> None:
    assert "has no manifests" in refused(image(manifests=[]), OCI_MANIFEST)
    assert "has no config" in refused(image(manifests=[]), OCI_INDEX)
    assert "Content-Type" in refused(image(mediaType=OCI_MANIFEST), OCI_INDEX)
    assert "JSON" in refused(image()[:-1] + b', "schemaVersion": 2}')
    assert "two sizes" in refused(image(layers=[entry(A, size=2)]))


@pytest.mark.parametrize(
    "bad",
    [
        {"schemaVersion": True},
        {"schemaVersion": 1},
        {"schemaVersion": "2"},
        {"config": None},
        {"config": entry(size=-1)},
        {"config": entry(size=True)},
        {"config": entry(size=1.0)},
        {"config": entry(size=2**63)},
        {"config": entry(digest="sha256:" + "A" * 64)},
        {"config": entry(digest=7)},
        {"config": entry(media_type="a\u0000b")},
        {"config": entry(media_type="")},
        {"layers": {}},
        {"layers": [None]},
        {"layers": [entry()] * 20_001},
        {"subject": []},
        {"artifactType": "a\nb"},
        {"annotations": []},
        {"annotations": {"a": None}},
    ],
)
def test_fields_that_are_not_what_they_should_be(bad: dict[str, Any]) -> None:
    refused(image(**bad))


@pytest.mark.parametrize("content", [b"", b"\xff", b"null", b"NaN", b"[" * 100_000, b'{"schemaVersion":2}'])
def test_what_is_no_document(content: bytes) -> None:
    refused(content)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([A, OCI_MANIFEST, 2]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["schemaVersion", "config", "layers", "manifests", "mediaType", "digest", "size", "subject"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(JSON, st.none() | st.sampled_from([OCI_MANIFEST, OCI_INDEX, "text/plain"]))
def test_anything_is_read_or_refused(value: Any, content_type: str | None) -> None:
    try:
        found = parse_manifest(json.dumps(value).encode(), content_type)
    except RegistryFault as error:
        assert error.code == "MANIFEST_INVALID"
    else:
        assert all(Digest.parse(digest) for digest in (*found.blobs, *found.children))
