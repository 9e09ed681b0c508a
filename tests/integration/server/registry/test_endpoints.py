"""The table of endpoints of the OCI distribution specification 1.1, line by line: what each answers when all is well,
and when it is not. The workflows are in the other modules of this folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import uuid4

import pytest
from tests.integration.server.registry.pushing import (
    INDEX,
    MANIFEST,
    Pushing,
    codes,
    descriptor,
    document,
    image_of,
    index_of,
    ranged,
)

from metalmark.model import Digest

GONE = Digest.of(b"nothing has these bytes")
GONE_512 = Digest.of(b"nothing has these bytes", "sha512")
SESSION = "01970000-0000-7000-8000-00000000dead"
PROJECT = "01970000-0000-7000-8000-00000000beef"


@dataclass(frozen=True)
class Refusal:
    """What an endpoint answers to a request that it cannot carry out."""

    end: str
    method: str
    path: str
    status: int
    code: str


REFUSALS = (
    Refusal("end-2", "GET", f"blobs/{GONE}", 404, "BLOB_UNKNOWN"),
    Refusal("end-2", "GET", f"blobs/{GONE_512}", 404, "BLOB_UNKNOWN"),
    Refusal("end-2", "HEAD", f"blobs/{GONE}", 404, ""),
    Refusal("end-2", "GET", "blobs/sha256:0", 400, "DIGEST_INVALID"),
    Refusal("end-3", "GET", "manifests/none", 404, "MANIFEST_UNKNOWN"),
    Refusal("end-3", "HEAD", "manifests/none", 404, ""),
    Refusal("end-3", "GET", f"manifests/{GONE_512}", 404, "MANIFEST_UNKNOWN"),
    Refusal("end-4b", "POST", "blobs/uploads/?digest=sha256:0", 400, "DIGEST_INVALID"),
    Refusal("end-4b", "POST", f"blobs/uploads/?digest={GONE}&digest={GONE}", 400, "DIGEST_INVALID"),
    Refusal("end-5", "PATCH", f"blobs/uploads/{SESSION}", 404, "BLOB_UPLOAD_UNKNOWN"),
    Refusal("end-6", "PUT", f"blobs/uploads/{SESSION}?digest={GONE}", 404, "BLOB_UPLOAD_UNKNOWN"),
    Refusal("end-7", "PUT", "manifests/none", 400, "MANIFEST_INVALID"),
    Refusal("end-7", "PUT", f"manifests/{GONE}", 400, "DIGEST_INVALID"),
    Refusal("end-8a", "GET", "tags/list", 404, "NAME_UNKNOWN"),
    Refusal("end-8b", "GET", "tags/list?n=3", 404, "NAME_UNKNOWN"),
    Refusal("end-9", "DELETE", "manifests/none", 404, "MANIFEST_UNKNOWN"),
    Refusal("end-9", "DELETE", f"manifests/{GONE}", 404, "MANIFEST_UNKNOWN"),
    Refusal("end-9", "DELETE", "manifests/-", 404, "MANIFEST_UNKNOWN"),
    Refusal("end-10", "DELETE", f"blobs/{GONE}", 404, "BLOB_UNKNOWN"),
    Refusal("end-10", "DELETE", "blobs/sha256:0", 400, "DIGEST_INVALID"),
    Refusal("end-11", "POST", "blobs/uploads/?mount=sha256:0&from=x", 400, "DIGEST_INVALID"),
    Refusal("end-11", "POST", f"blobs/uploads/?mount={GONE}&from=UPPER", 400, "NAME_INVALID"),
    Refusal("end-12a", "GET", "referrers/sha256:0", 400, "DIGEST_INVALID"),
    Refusal("end-12a", "GET", "referrers/latest", 400, "DIGEST_INVALID"),
    Refusal("end-12b", "GET", "referrers/sha256:0?artifactType=a/b", 400, "DIGEST_INVALID"),
    Refusal("end-13", "GET", f"blobs/uploads/{SESSION}", 404, "BLOB_UPLOAD_UNKNOWN"),
    Refusal("cancel", "DELETE", f"blobs/uploads/{SESSION}", 404, "BLOB_UPLOAD_UNKNOWN"),
)


def test_what_cannot_be_done(repository: Pushing) -> None:
    for refusal in REFUSALS:
        answer = repository.call(refusal.method, refusal.path)
        assert answer.status_code == refusal.status, (refusal, answer.text)
        assert answer.headers["content-type"] == "application/json", refusal
        if refusal.method != "HEAD":
            assert set(codes(answer)) == {refusal.code}, refusal


def test_a_project_that_is_not_there(repository: Pushing) -> None:
    for refusal in REFUSALS:
        # By its identifier, under which no push makes one.
        answer = repository.at(f"{PROJECT}/app").call(refusal.method, refusal.path)
        assert answer.status_code == 404, (refusal, answer.text)
        if refusal.method != "HEAD":
            assert codes(answer) == ["NAME_UNKNOWN"], refusal


def test_end_1_there_is_a_registry(repository: Pushing) -> None:
    for path in ("/v2/", "/v2"):
        answer = repository.client.get(path)
        assert (answer.status_code, answer.json()) == (200, {})
        refused = repository.client.get(path, headers={"authorization": ""})
        assert (refused.status_code, codes(refused)) == (401, ["UNAUTHORIZED"])
        assert refused.headers["www-authenticate"].startswith("Bearer realm=")


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_ends_2_4_6_10_13_of_a_blob(repository: Pushing, algorithm: str) -> None:
    content = uuid4().bytes * 4
    digest = Digest.of(content, algorithm)
    begun = repository.call("POST", "blobs/uploads/")
    assert (begun.status_code, begun.content) == (202, b"")
    location = begun.headers["location"]
    # What is shorter than this is taken as well, but not without end.
    assert int(begun.headers["oci-chunk-min-length"]) >= 1
    status = repository.session("GET", location)
    assert (status.status_code, status.headers["range"], status.headers["location"]) == (204, "0-0", location)
    sent = repository.session("PATCH", location, content=content[:20], headers=ranged(0, content[:20]))
    assert (sent.status_code, sent.headers["range"]) == (202, "0-19")
    again = repository.session("PATCH", location, content=content[:20], headers=ranged(0, content[:20]))
    assert (again.status_code, again.headers["range"], codes(again)) == (416, "0-19", ["BLOB_UPLOAD_INVALID"])
    ended = repository.session(
        "PUT", location, params={"digest": str(digest)}, content=content[20:], headers=ranged(20, content[20:])
    )
    assert (ended.status_code, ended.headers["location"]) == (201, f"/v2/{repository.name}/blobs/{digest}")
    for method in ("GET", "HEAD"):
        found = repository.call(method, f"blobs/{digest}")
        assert (found.status_code, found.headers["content-length"]) == (200, str(len(content)))
        assert found.headers["docker-content-digest"] == str(digest)
        assert found.headers["accept-ranges"] == "bytes"
    # HEAD tells what GET would, whatever range was asked for.
    assert repository.call("HEAD", f"blobs/{digest}", headers={"range": "bytes=9999-"}).status_code == 200
    assert repository.call("DELETE", f"blobs/{digest}").status_code == 202
    assert repository.call("GET", f"blobs/{digest}").status_code == 404
    assert repository.call("DELETE", f"blobs/{digest}").status_code == 404


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_end_11_a_mount(repository: Pushing, algorithm: str) -> None:
    content = uuid4().bytes
    digest = repository.push_blob(content, algorithm)
    for number, query in enumerate(({"from": repository.name}, {})):
        target = repository.at(f"{repository.name}/mounted{number}")
        # The automatic one, without a source, finds what is anywhere in the project.
        mounted = target.call("POST", "blobs/uploads/", params={"mount": str(digest), **query})
        assert (mounted.status_code, mounted.headers["location"]) == (201, f"/v2/{target.name}/blobs/{digest}")
        assert target.call("GET", f"blobs/{digest}").content == content
    # What cannot be mounted is uploaded, by the session that comes instead.
    missing = uuid4().bytes
    instead = repository.call("POST", "blobs/uploads/", params={"mount": str(Digest.of(missing, algorithm))})
    assert instead.status_code == 202
    done = repository.session(
        "PUT", instead.headers["location"], params={"digest": str(Digest.of(missing, algorithm))}, content=missing
    )
    assert done.status_code == 201, done.text


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_ends_3_7_9_12_of_manifests(repository: Pushing, algorithm: str) -> None:
    config = uuid4().bytes
    repository.push_blob(config)
    manifest = image_of(config, [])
    digest = Digest.of(manifest, algorithm)
    put = repository.put_manifest(str(digest), manifest)
    assert (put.status_code, put.headers["docker-content-digest"]) == (201, str(digest))
    assert put.headers["location"] == f"/v2/{repository.name}/manifests/{digest}"
    assert "oci-subject" not in put.headers
    for method in ("GET", "HEAD"):
        found = repository.call(method, f"manifests/{digest}", headers={"accept": MANIFEST})
        assert (found.status_code, found.headers["content-length"]) == (200, str(len(manifest)))
        assert (found.headers["content-type"], found.headers["docker-content-digest"]) == (MANIFEST, str(digest))
    subject = {"mediaType": MANIFEST, "digest": str(digest), "size": len(manifest)}
    signature = image_of(config, [], subject=subject, artifactType="application/vnd.example.signature")
    signed = repository.put_manifest(str(Digest.of(signature, algorithm)), signature)
    assert (signed.status_code, signed.headers["oci-subject"]) == (201, str(digest))
    for query in ({}, {"artifactType": "application/vnd.example.signature"}):
        listed = repository.call("GET", f"referrers/{digest}", params=query)
        assert (listed.status_code, listed.headers["content-type"]) == (200, INDEX)
        assert ("oci-filters-applied" in listed.headers) == bool(query)
        (entry,) = listed.json()["manifests"]
        assert entry["digest"] == str(Digest.of(signature, algorithm))
    # An index may name what goes by either algorithm.
    named = document({"schemaVersion": 2, "mediaType": INDEX, "manifests": [subject]})
    repository.push_manifest(named, "all", media_type=INDEX)
    refused = repository.call("DELETE", f"manifests/{digest}")
    assert (refused.status_code, codes(refused)) == (405, ["DENIED"])
    for reference in ("all", str(Digest.of(named)), str(digest), str(Digest.of(signature, algorithm))):
        assert repository.call("DELETE", f"manifests/{reference}").status_code == 202, reference
        assert repository.call("GET", f"manifests/{reference}").status_code == 404
    assert repository.call("GET", f"referrers/{digest}").json()["manifests"] == []


def test_end_8_tags(repository: Pushing) -> None:
    repository.push_image("a", "b", "c")
    listed = repository.call("GET", "tags/list")
    assert (listed.status_code, listed.json()) == (200, {"name": repository.name, "tags": ["a", "b", "c"]})
    assert listed.headers["content-type"] == "application/json"
    first = repository.call("GET", "tags/list", params={"n": 2})
    assert first.json()["tags"] == ["a", "b"]
    assert first.headers["link"] == f'</v2/{repository.name}/tags/list?n=2&last=b>; rel="next"'
    assert repository.call("GET", "tags/list", params={"n": 2, "last": "b"}).json()["tags"] == ["c"]


def test_what_was_pushed_by_clients_that_know_no_referrers_is_listed(repository: Pushing) -> None:
    # "Enabling the Referrers API": manifests with a subject are in its answer, however their client noted them.
    config = uuid4().bytes
    repository.push_blob(config)
    subject = repository.push_image("v1")
    signature = image_of(config, [], subject=descriptor(subject, MANIFEST))
    repository.push_manifest(signature)
    noted = index_of([signature])
    tag = str(Digest.of(subject)).replace(":", "-")
    repository.push_manifest(noted, tag, media_type=INDEX)
    assert repository.call("GET", f"manifests/{tag}").content == noted
    (entry,) = repository.call("GET", f"referrers/{Digest.of(subject)}").json()["manifests"]
    assert entry["digest"] == str(Digest.of(signature))
    # Such a client takes its note away with what it is of.
    assert repository.call("DELETE", f"manifests/{tag}").status_code == 202
    assert repository.tags() == ["v1"]


@pytest.mark.parametrize("inner", ["blobs", "manifests", "tags", "referrers/a", "manifests/tags", "blobs/uploads"])
def test_repositories_that_are_called_like_endpoints(repository: Pushing, inner: str) -> None:
    called = repository.at(f"{repository.name}/{inner}")
    image = called.push_image("list", "uploads")
    assert called.tags() == ["list", "uploads"]
    for reference in ("list", "uploads", str(Digest.of(image))):
        assert called.call("GET", f"manifests/{reference}").content == image
    assert called.call("GET", f"referrers/{Digest.of(image)}").json()["manifests"] == []


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", f"blobs/{GONE}", "GET"),
        ("PUT", "tags/list", "GET"),
        ("POST", "manifests/v1", "PUT"),
        ("PATCH", "blobs/uploads", "POST"),
        ("DELETE", f"referrers/{GONE}", "GET"),
        ("POST", f"blobs/uploads/{SESSION}", "PATCH"),
    ],
)
def test_methods_that_an_endpoint_does_not_have(repository: Pushing, method: str, path: str, allowed: str) -> None:
    answer = repository.call(method, path)
    assert (answer.status_code, codes(answer)) == (405, ["UNSUPPORTED"])
    assert allowed in answer.headers["allow"]
