"""The workflows "Content Discovery" and "Content Management" of the OCI distribution specification 1.1."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from tests.integration.server.registry.pushing import (
    CONFIG,
    INDEX,
    MANIFEST,
    Pushing,
    codes,
    descriptor,
    document,
    image_of,
    index_of,
)

from metalmark.model import Digest

SIGNATURE = "application/vnd.example.signature"


def test_tags_in_their_order_and_in_pages(repository: Pushing) -> None:
    unknown = repository.call("GET", "tags/list")
    assert (unknown.status_code, codes(unknown)) == (404, ["NAME_UNKNOWN"])
    repository.push_image("b", "a", "B", "c1", "C", "_d")
    order = ["_d", "a", "B", "b", "C", "c1"]
    assert repository.tags() == order
    assert repository.tags(n=0) == []
    assert "link" not in repository.call("GET", "tags/list", params={"n": 0}).headers
    assert list(repository.pages("tags/list", "tags", n=4)) == [order[:4], order[4:]]
    assert list(repository.pages("tags/list", "tags", n=6)) == [order]
    assert [len(page) for page in repository.pages("tags/list", "tags", n=1)] == [1] * 6
    # Where a tag would be, whether it is there or not.
    assert repository.tags(last="B") == order[3:]
    assert repository.tags(last="bb", n=1) == ["C"]
    assert repository.tags(last="zz") == []
    bad = repository.call("GET", "tags/list", params={"last": "-"})
    assert (bad.status_code, codes(bad)) == (400, ["TAG_INVALID"])
    assert repository.call("GET", "tags/list", params={"n": "-1"}).status_code == 400


def referrer(config: bytes, subject: bytes | dict[str, Any], **more: Any) -> bytes:
    described = subject if isinstance(subject, dict) else descriptor(subject, MANIFEST)
    return image_of(config, [], subject=described, **more)


def test_referrers_with_filter_and_pages(repository: Pushing) -> None:
    subject = repository.push_image("v1")
    digest, config = Digest.of(subject), uuid4().bytes
    assert repository.call("GET", f"referrers/{digest}").json()["manifests"] == []
    repository.push_blob(config)
    plain = referrer(config, subject, annotations={"org.example": "ü\u0000"})
    signatures = [referrer(config, subject, artifactType=SIGNATURE, annotations={"n": str(n)}) for n in range(3)]
    of_index = index_of([subject], subject=descriptor(subject, MANIFEST), artifactType=SIGNATURE)
    for content in (plain, *signatures):
        answer = repository.put_manifest(str(Digest.of(content)), content)
        assert (answer.status_code, answer.headers["oci-subject"]) == (201, str(digest))
    repository.push_manifest(of_index, media_type=INDEX)

    answer = repository.call("GET", f"referrers/{digest}")
    assert answer.headers["content-type"] == INDEX
    assert "oci-filters-applied" not in answer.headers
    index = answer.json()
    assert (index["schemaVersion"], index["mediaType"]) == (2, INDEX)
    found = {entry["digest"]: entry for entry in index["manifests"]}
    assert set(found) == {str(Digest.of(content)) for content in (plain, *signatures, of_index)}
    assert found[str(Digest.of(plain))] == {
        **descriptor(plain, MANIFEST),
        # Without a type of its own, that of its configuration.
        "artifactType": CONFIG,
        "annotations": {"org.example": "ü\u0000"},
    }
    assert found[str(Digest.of(of_index))]["artifactType"] == SIGNATURE

    filtered = repository.call("GET", f"referrers/{digest}", params={"artifactType": SIGNATURE})
    assert filtered.headers["oci-filters-applied"] == "artifactType"
    assert {entry["digest"] for entry in filtered.json()["manifests"]} == set(found) - {str(Digest.of(plain))}
    pages = list(repository.pages(f"referrers/{digest}", "manifests", n=3, artifactType=SIGNATURE))
    assert [len(page) for page in pages] == [3, 1]
    assert {entry["digest"] for page in pages for entry in page} == set(found) - {str(Digest.of(plain))}
    nothing = repository.call("GET", f"referrers/{digest}", params={"artifactType": "text/none"})
    assert (nothing.status_code, nothing.json()["manifests"]) == (200, [])

    for content in signatures:
        assert repository.call("DELETE", f"manifests/{Digest.of(content)}").status_code == 202
    left = repository.call("GET", f"referrers/{digest}").json()["manifests"]
    assert {entry["digest"] for entry in left} == {str(Digest.of(plain)), str(Digest.of(of_index))}


def test_a_subject_need_not_be_there(repository: Pushing) -> None:
    config, missing = uuid4().bytes, descriptor(uuid4().bytes, MANIFEST)
    repository.push_blob(config)
    content = referrer(config, missing)
    answer = repository.put_manifest("signature", content)
    assert (answer.status_code, answer.headers["oci-subject"]) == (201, missing["digest"])
    (entry,) = repository.call("GET", f"referrers/{missing['digest']}").json()["manifests"]
    assert entry["digest"] == str(Digest.of(content))
    bad = repository.call("GET", "referrers/sha256:1")
    assert (bad.status_code, codes(bad)) == (400, ["DIGEST_INVALID"])
    elsewhere = repository.at(f"{repository.name}/other").call("GET", f"referrers/{missing['digest']}")
    assert (elsewhere.status_code, elsewhere.json()["manifests"]) == (200, [])


def test_long_annotations_come_in_pages_that_clients_take(repository: Pushing) -> None:
    config, missing = uuid4().bytes, descriptor(uuid4().bytes, MANIFEST)
    repository.push_blob(config)
    for number in range(5):
        repository.push_manifest(referrer(config, missing, annotations={"x": f"{number}" * 1_500_000}))
    pages = list(repository.pages(f"referrers/{missing['digest']}", "manifests"))
    assert [len(page) for page in pages] == [2, 2, 1]


def test_the_tag_schema_of_clients_that_know_no_referrers(repository: Pushing) -> None:
    subject = repository.push_image("v1")
    tag = str(Digest.of(subject)).replace(":", "-")
    index = index_of([])
    repository.push_manifest(index, tag, media_type=INDEX)
    assert repository.call("GET", f"manifests/{tag}").content == index
    assert repository.call("GET", f"referrers/{Digest.of(subject)}").json()["manifests"] == []


def test_deleting_a_tag_and_then_the_manifest(repository: Pushing) -> None:
    manifest = repository.push_image("v1", "v2")
    digest = Digest.of(manifest)
    assert repository.call("DELETE", "manifests/v1").status_code == 202
    assert codes(repository.call("GET", "manifests/v1")) == ["MANIFEST_UNKNOWN"]
    assert codes(repository.call("DELETE", "manifests/v1")) == ["MANIFEST_UNKNOWN"]
    assert repository.call("GET", f"manifests/{digest}").content == manifest
    assert repository.tags() == ["v2"]
    assert repository.call("DELETE", f"manifests/{digest}").status_code == 202
    assert repository.call("DELETE", f"manifests/{digest}").status_code == 404
    for reference in ("v2", str(digest)):
        assert codes(repository.call("GET", f"manifests/{reference}")) == ["MANIFEST_UNKNOWN"]
    assert repository.tags() == []


def test_what_a_manifest_names_is_not_deleted(repository: Pushing) -> None:
    config = uuid4().bytes
    blob = repository.push_blob(config)
    image = image_of(config, [])
    repository.push_manifest(image, "v1")
    index = index_of([image])
    repository.push_manifest(index, "all", media_type=INDEX)
    for path in (f"blobs/{blob}", f"manifests/{Digest.of(image)}"):
        refused = repository.call("DELETE", path)
        assert (refused.status_code, codes(refused)) == (405, ["DENIED"]), path
        assert "GET" in refused.headers["allow"]
        assert repository.call("GET", path).status_code == 200
    for path in (f"manifests/{Digest.of(index)}", f"manifests/{Digest.of(image)}", f"blobs/{blob}"):
        assert repository.call("DELETE", path).status_code == 202, path
    gone = repository.call("DELETE", f"blobs/{blob}")
    assert (gone.status_code, codes(gone)) == (404, ["BLOB_UNKNOWN"])


def test_a_blob_stays_in_other_repositories(repository: Pushing) -> None:
    content = uuid4().bytes
    digest = repository.push_blob(content)
    other = repository.at(f"{repository.name}/other")
    other.push_blob(content)
    assert repository.call("DELETE", f"blobs/{digest}").status_code == 202
    assert repository.call("HEAD", f"blobs/{digest}").status_code == 404
    assert other.call("GET", f"blobs/{digest}").content == content


@pytest.mark.parametrize(
    "bad", [{"subject": "x"}, {"subject": {"digest": "x"}}, {"annotations": {"a": 1}}, {"artifactType": 7}]
)
def test_fields_of_another_shape(repository: Pushing, bad: dict[str, Any]) -> None:
    config = uuid4().bytes
    repository.push_blob(config)
    described = descriptor(config, CONFIG)
    content = document({"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": [], **bad})
    assert codes(repository.put_manifest("v1", content)) == ["MANIFEST_INVALID"]
