"""The workflows "Push" and "Pull" of the OCI distribution specification 1.1, on both engines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from uuid import uuid4

import pytest
from tests.integration.server.registry.pushing import (
    CONFIG,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    INDEX,
    LAYER,
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

PIECE = 1024 * 1024


def blob(size: int = 3000) -> bytes:
    return (uuid4().bytes * (size // 16 + 1))[:size]


def read(repository: Pushing, digest: Digest) -> bytes:
    answer = repository.call("GET", f"blobs/{digest}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["docker-content-digest"] == str(digest)
    assert answer.headers["content-length"] == str(len(answer.content))
    head = repository.call("HEAD", f"blobs/{digest}")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(answer.content))
    assert head.headers["docker-content-digest"] == str(digest)
    return answer.content


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_blob_after_its_session(repository: Pushing, algorithm: str) -> None:
    content = blob()
    assert repository.call("HEAD", f"blobs/{Digest.of(content, algorithm)}").status_code == 404
    digest = repository.push_blob(content, algorithm)
    assert read(repository, digest) == content


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("content", [b"", b"x", blob(5 * PIECE + 17)], ids=["empty", "one byte", "five pieces"])
def test_a_blob_in_one_request(repository: Pushing, algorithm: str, content: bytes) -> None:
    digest = Digest.of(content, algorithm)
    answer = repository.call("POST", "blobs/uploads/", params={"digest": str(digest)}, content=content)
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/v2/{repository.name}/blobs/{digest}"
    assert read(repository, digest) == content


def test_an_empty_blob_after_its_session(repository: Pushing) -> None:
    assert read(repository, repository.push_blob(b"")) == b""


def test_a_blob_of_unknown_length(repository: Pushing) -> None:
    content = blob(2 * PIECE)

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(content), 50_000):
            yield content[start : start + 50_000]

    location = repository.begin()
    sent = repository.session("PATCH", location, content=pieces())
    assert (sent.status_code, sent.headers["range"]) == (202, f"0-{len(content) - 1}")
    done = repository.session("PUT", location, params={"digest": str(Digest.of(content))})
    assert done.status_code == 201, done.text
    assert read(repository, Digest.of(content)) == content


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_chunks_with_status_and_resume(repository: Pushing, algorithm: str) -> None:
    chunks = [blob(1000), blob(4 * PIECE + 5), blob(7)]
    location, start = repository.begin(), 0
    for chunk in chunks[:2]:
        sent = repository.session("PATCH", location, content=chunk, headers=ranged(start, chunk))
        start += len(chunk)
        assert (sent.status_code, sent.headers["range"]) == (202, f"0-{start - 1}"), sent.text
        assert sent.headers["location"] == location
    status = repository.session("GET", location)
    assert (status.status_code, status.headers["range"]) == (204, f"0-{start - 1}")
    assert status.headers["location"] == location
    # What is out of order changes nothing, and says where to go on.
    for at in (0, start - 1, start + 1):
        refused = repository.session("PATCH", location, content=chunks[2], headers=ranged(at, chunks[2]))
        assert (refused.status_code, codes(refused)) == (416, ["BLOB_UPLOAD_INVALID"])
        assert (refused.headers["range"], refused.headers["location"]) == (f"0-{start - 1}", location)
    whole = b"".join(chunks)
    digest = Digest.of(whole, algorithm)
    done = repository.session(
        "PUT", location, params={"digest": str(digest)}, content=chunks[2], headers=ranged(start, chunks[2])
    )
    assert done.status_code == 201, done.text
    assert read(repository, digest) == whole
    assert repository.session("GET", location).status_code == 404


@pytest.mark.parametrize("text", ["5-3", "x-y", "0-3-5", "-"])
def test_a_range_that_is_none(repository: Pushing, text: str) -> None:
    location = repository.begin()
    refused = repository.session("PATCH", location, content=b"0123", headers={"content-range": text})
    assert (refused.status_code, refused.headers["range"]) == (416, "0-0")


def test_an_upload_is_canceled(repository: Pushing) -> None:
    location = repository.begin()
    repository.session("PATCH", location, content=blob())
    assert repository.session("DELETE", location).status_code == 204
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        gone = repository.session(method, location, params={"digest": str(Digest.of(b""))})
        assert (gone.status_code, codes(gone)) == (404, ["BLOB_UPLOAD_UNKNOWN"])


def test_another_digest_publishes_nothing(repository: Pushing) -> None:
    content, other = blob(), blob()
    location = repository.begin()
    refused = repository.session("PUT", location, params={"digest": str(Digest.of(other))}, content=content)
    assert (refused.status_code, codes(refused)) == (400, ["DIGEST_INVALID"])
    whole = repository.call("POST", "blobs/uploads/", params={"digest": str(Digest.of(other))}, content=content)
    assert (whole.status_code, codes(whole)) == (400, ["DIGEST_INVALID"])
    for digest in (Digest.of(content), Digest.of(other)):
        assert repository.call("HEAD", f"blobs/{digest}").status_code == 404


@pytest.mark.parametrize("digest", ["", "sha256:abc", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:" + "A" * 64])
def test_a_digest_that_is_none(repository: Pushing, digest: str) -> None:
    content = blob()
    location = repository.begin()
    refused = repository.session("PUT", location, params={"digest": digest} if digest else None, content=content)
    assert (refused.status_code, codes(refused)) == (400, ["DIGEST_INVALID"])
    # The upload is still there: only its end was malformed.
    assert repository.session("GET", location).status_code == 204
    assert repository.call("GET", f"blobs/{digest or 'sha256:'}").status_code == 400


def test_sessions_belong_to_their_repository(repository: Pushing) -> None:
    location = repository.begin()
    other = repository.at(f"{repository.name}/other")
    session = location.rpartition("/")[2]
    for name in (session, "not-a-session", "..%2f.."):
        answer = other.call("GET", f"blobs/uploads/{name}")
        assert answer.status_code in (400, 404), answer.text
    assert codes(other.call("PATCH", f"blobs/uploads/{session}", content=b"x")) == ["BLOB_UPLOAD_UNKNOWN"]


def test_blobs_are_seen_where_they_were_pushed(repository: Pushing) -> None:
    digest = repository.push_blob(blob())
    other = repository.at(f"{repository.name}/other")
    unseen = other.call("GET", f"blobs/{digest}")
    assert (unseen.status_code, codes(unseen)) == (404, ["BLOB_UNKNOWN"])
    mounted = other.call("POST", "blobs/uploads/", params={"mount": str(digest), "from": repository.name})
    assert mounted.status_code == 201, mounted.text
    assert mounted.headers["location"] == f"/v2/{other.name}/blobs/{digest}"
    assert mounted.headers["docker-content-digest"] == str(digest)
    assert read(other, digest) == read(repository, digest)


def test_a_mount_of_what_is_not_there_begins_an_upload(repository: Pushing) -> None:
    digest = str(Digest.of(blob()))
    for source in (repository.name, f"{repository.name}/never", "nobodys-project/x"):
        answer = repository.call("POST", "blobs/uploads/", params={"mount": digest, "from": source})
        assert answer.status_code == 202, answer.text
        assert "docker-upload-uuid" in answer.headers
    bad = repository.call("POST", "blobs/uploads/", params={"mount": "sha256:1", "from": repository.name})
    assert (bad.status_code, codes(bad)) == (400, ["DIGEST_INVALID"])


def test_a_mount_without_a_source_looks_in_the_project(repository: Pushing) -> None:
    digest = repository.push_blob(blob())
    other = repository.at(f"{repository.name}/other")
    assert other.call("POST", "blobs/uploads/", params={"mount": str(digest)}).status_code == 201


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [("0-0", (0, 1)), ("10-19", (10, 20)), ("2990-", (2990, 3000)), ("-10", (2990, 3000)), ("2990-9999", (2990, 3000))],
)
def test_ranges_of_a_blob(repository: Pushing, wanted: str, expected: tuple[int, int]) -> None:
    chunks = [blob(1000), blob(1000), blob(1000)]
    location, start, end = repository.begin(), *expected
    for at, chunk in enumerate(chunks):
        repository.session("PATCH", location, content=chunk, headers=ranged(at * 1000, chunk))
    whole = b"".join(chunks)
    repository.session("PUT", location, params={"digest": str(Digest.of(whole))})
    answer = repository.call("GET", f"blobs/{Digest.of(whole)}", headers={"range": f"bytes={wanted}"})
    assert (answer.status_code, answer.content) == (206, whole[start:end])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/3000"
    changed = {"range": f"bytes={wanted}", "if-range": '"other"'}
    assert repository.call("GET", f"blobs/{Digest.of(whole)}", headers=changed).content == whole


@pytest.mark.parametrize(("wanted", "status"), [("3000-", 416), ("5000-6000", 416), ("5-3", 200), ("0-1,5-9", 200)])
def test_ranges_that_are_not_there(repository: Pushing, wanted: str, status: int) -> None:
    digest = repository.push_blob(blob(3000))
    answer = repository.call("GET", f"blobs/{digest}", headers={"range": f"bytes={wanted}"})
    assert answer.status_code == status
    if status == 416:
        assert answer.headers["content-range"] == "bytes */3000"


def test_what_a_client_has_is_not_sent_again(repository: Pushing) -> None:
    digest = repository.push_blob(blob())
    manifest = repository.push_image("v1")
    for path, tag in ((f"blobs/{digest}", str(digest)), ("manifests/v1", str(Digest.of(manifest)))):
        etag = repository.call("HEAD", path).headers["etag"]
        assert etag == f'"{tag}"'
        again = repository.call("GET", path, headers={"if-none-match": etag})
        assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("media_type", [MANIFEST, DOCKER_MANIFEST])
def test_an_image_by_tag_and_digest(repository: Pushing, media_type: str) -> None:
    config, layer = blob(100), blob(5000)
    repository.push_blob(config)
    repository.push_blob(layer)
    # Odd spaces and fields of nobody's are kept byte for byte.
    content = image_of(config, [layer], media_type, custom={"é": [1.50, None]}).replace(b'": ', b'" :\t')
    assert codes(repository.call("GET", "manifests/v1")) == ["MANIFEST_UNKNOWN"]
    digest = repository.push_manifest(content, "v1", media_type=media_type)
    for reference in ("v1", str(digest)):
        for accept in ("*/*", "application/vnd.unheard.of"):
            answer = repository.call("GET", f"manifests/{reference}", headers={"accept": accept})
            assert (answer.status_code, answer.content) == (200, content)
            assert answer.headers["content-type"] == media_type
            assert answer.headers["docker-content-digest"] == str(digest)
        head = repository.call("HEAD", f"manifests/{reference}")
        assert (head.status_code, head.headers["content-length"]) == (200, str(len(content)))
        assert (head.headers["content-type"], head.content) == (media_type, b"")


def test_a_manifest_under_sha512(repository: Pushing) -> None:
    config = blob(10)
    repository.push_blob(config, "sha512")
    described = descriptor(config, CONFIG, "sha512")
    content = document({"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": []})
    digest = Digest.of(content, "sha512")
    answer = repository.put_manifest(str(digest), content)
    assert answer.status_code == 201, answer.text
    assert answer.headers["docker-content-digest"] == str(digest)
    assert repository.call("GET", f"manifests/{digest}").content == content
    wrong = repository.put_manifest(str(Digest.of(b"other", "sha512")), content)
    assert (wrong.status_code, codes(wrong)) == (400, ["DIGEST_INVALID"])


def test_a_tag_moves(repository: Pushing) -> None:
    first, second = repository.push_image("latest"), repository.push_image("latest")
    assert repository.call("GET", "manifests/latest").content == second
    assert repository.call("GET", f"manifests/{Digest.of(first)}").content == first
    assert repository.tags() == ["latest"]


@pytest.mark.parametrize(("index_type", "child"), [(INDEX, MANIFEST), (DOCKER_LIST, DOCKER_MANIFEST)])
def test_an_index_of_indexes(repository: Pushing, index_type: str, child: str) -> None:
    config = blob(10)
    repository.push_blob(config)
    images = [image_of(config, [], child, annotations={"n": str(number)}) for number in range(2)]
    inner = index_of(images, index_type, child)
    refused = repository.put_manifest("v1", inner, index_type)
    assert (refused.status_code, codes(refused)) == (400, ["MANIFEST_BLOB_UNKNOWN"] * 2)
    assert {error["detail"]["digest"] for error in refused.json()["errors"]} == {str(Digest.of(i)) for i in images}
    for image in images:
        repository.push_manifest(image, media_type=child)
    repository.push_manifest(inner, media_type=index_type)
    outer = index_of([inner], index_type, index_type)
    repository.push_manifest(outer, "v1", media_type=index_type)
    answer = repository.call("GET", "manifests/v1")
    assert (answer.content, answer.headers["content-type"]) == (outer, index_type)


def test_a_builders_cache_is_an_index_of_blobs(repository: Pushing) -> None:
    layer = blob()
    content = document({"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor(layer, LAYER)]})
    assert codes(repository.put_manifest("cache", content, INDEX)) == ["MANIFEST_BLOB_UNKNOWN"]
    repository.push_blob(layer)
    repository.push_manifest(content, "cache", media_type=INDEX)


def test_an_artifact(repository: Pushing) -> None:
    empty, payload = b"{}", blob()
    repository.push_blob(empty)
    repository.push_blob(payload)
    content = document(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": "application/vnd.example.results",
            "config": descriptor(empty, "application/vnd.oci.empty.v1+json", data="e30="),
            "layers": [descriptor(payload, "text/plain")],
        }
    )
    repository.push_manifest(content, "results")
    assert repository.call("GET", "manifests/results").content == content


def test_layers_that_are_elsewhere_need_not_be_here(repository: Pushing) -> None:
    config, layer = blob(10), blob()
    repository.push_blob(config)
    foreign = descriptor(
        layer, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", urls=["https://example.com"]
    )
    content = document(
        {"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": descriptor(config, CONFIG), "layers": [foreign]}
    )
    repository.push_manifest(content, "windows", media_type=DOCKER_MANIFEST)


def test_a_manifest_that_lacks_blobs(repository: Pushing) -> None:
    config, there, missing = blob(10), blob(20), blob(30)
    repository.push_blob(config)
    repository.push_blob(there)
    # Pushed elsewhere is not pushed here.
    repository.at(f"{repository.name}/other").push_blob(missing)
    refused = repository.put_manifest("v1", image_of(config, [there, missing]))
    assert (refused.status_code, codes(refused)) == (400, ["MANIFEST_BLOB_UNKNOWN"])
    assert refused.json()["errors"][0]["detail"] == {"digest": str(Digest.of(missing))}
    assert repository.call("GET", "manifests/v1").status_code == 404
    lying = json.loads(image_of(config, [there]))
    lying["layers"][0]["size"] += 1
    assert codes(repository.put_manifest("v1", document(lying))) == ["MANIFEST_INVALID"]


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (b"", MANIFEST),
        (b"[]", MANIFEST),
        (b"\xff", MANIFEST),
        (b"[" * 100_000, MANIFEST),
        (b'{"schemaVersion": 1}', "application/vnd.docker.distribution.manifest.v1+json"),
        (b'{"schemaVersion": 2}', MANIFEST),
        (b'{"schemaVersion": 2, "manifests": [], "layers": []}', INDEX),
        (b'{"schemaVersion": 2, "mediaType": "' + INDEX.encode() + b'", "manifests": []}', MANIFEST),
        (b'{"schemaVersion": 2, "schemaVersion": 2, "manifests": []}', INDEX),
        (b'{"schemaVersion": 2, "manifests": []}', "text/plain"),
    ],
)
def test_documents_that_are_no_manifests(repository: Pushing, content: bytes, media_type: str) -> None:
    refused = repository.put_manifest("v1", content, media_type)
    assert (refused.status_code, codes(refused)) == (400, ["MANIFEST_INVALID"])


@pytest.mark.parametrize("tag", ["-a", ".a", "a" * 129, "a%20b", "a:b", "ü"])
def test_names_that_are_no_tags(repository: Pushing, tag: str) -> None:
    manifest = repository.push_image()
    refused = repository.put_manifest(tag, manifest)
    assert refused.status_code == 400, refused.text
    assert codes(refused)[0] in ("TAG_INVALID", "DIGEST_INVALID")
    assert codes(repository.call("GET", f"manifests/{tag}")) == ["MANIFEST_UNKNOWN"]


@pytest.mark.parametrize("name", ["UPPER", "a//b/-c", "a/_b", "a/b..c", "a/" + "b" * 300, "%2e%2e/x", "a%00b"])
def test_names_that_are_no_repositories(repository: Pushing, name: str) -> None:
    for method, path in (("GET", "tags/list"), ("POST", "blobs/uploads/"), ("GET", "manifests/v1")):
        refused = repository.at(name).call(method, path)
        assert (refused.status_code, codes(refused)) == (400, ["NAME_INVALID"]), (method, path)


def test_paths_that_are_no_endpoints(repository: Pushing) -> None:
    assert repository.call("POST", f"blobs/{Digest.of(b'')}").status_code == 405
    assert repository.call("DELETE", "blobs/uploads").status_code == 405
    answer = repository.client.get("/v2/_catalog")
    assert (answer.status_code, codes(answer)) == (404, ["UNSUPPORTED"])
