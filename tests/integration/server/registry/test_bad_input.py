"""Input that is wrong on purpose, or by a broken connection: the specified error each time, nothing half published."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import httpx
import pytest
from tests.integration.server.registry.pushing import INDEX, MANIFEST, Pushing, codes, document, image_of
from tests.integration.server.registry_world import RegistryWorld, basic, bearer, make_world

from metalmark.model import Digest
from metalmark.server import ServerContext
from metalmark.server.signer import Audience, Grant, Pull
from metalmark.store import REGISTRY_PREFIX
from metalmark.testing.running_server import RunningServer, running_server

BODY_MAX = 100_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of its own: what is stored is counted. What is refused here does not reach the engine."""
    settings = {"server": {"request_body_max_bytes": BODY_MAX}, "registry": {"layer_max_bytes": 1_000_000}}
    with running_server(tmp_path_factory.mktemp("server"), settings=settings) as running:
        yield running


@pytest.fixture(scope="module")
def world(server: RunningServer) -> RegistryWorld:
    return make_world(server)


def stored(server: RunningServer) -> set[str]:
    async def read(context: ServerContext) -> set[str]:
        return {found.key for found in await context.blobs.below(REGISTRY_PREFIX)}

    return server.call(read)


def raw(
    server: RunningServer, request: bytes, *, hang_up: bool = False, awaited: bytes | None = None
) -> tuple[int, bytes]:
    """Send bytes that no HTTP library would, and return status and body of the answer; 0 where there is none.

    Args:
        server: Where to.
        request: What is sent at once.
        hang_up: Whether nothing more is said after it.
        awaited: A body that is sent when the server has asked for it.
    """
    place = urlsplit(server.url)
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=30) as connection:
        connection.sendall(request)
        if awaited is not None:
            go_on = connection.recv(65536)
            assert go_on.startswith(b"HTTP/1.1 100 "), go_on
            connection.sendall(awaited)
        if hang_up:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while piece := connection.recv(65536):
                answer += piece
        except ConnectionResetError:
            pass
    head, _, body = answer.partition(b"\r\n\r\n")
    return (int(head.split(b" ", 2)[1]) if head else 0), body


def request(repository: Pushing, method: str, target: str, *headers: str) -> bytes:
    lines = [
        f"{method} {target} HTTP/1.1",
        "Host: registry.example",
        "Connection: close",
        f"Authorization: {repository.client.headers['authorization']}",
        *headers,
        "",
        "",
    ]
    return "\r\n".join(lines).encode("latin-1")


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("way", ["POST", "PUT", "session"])
def test_a_wrong_digest(server: RunningServer, repository: Pushing, algorithm: str, way: str) -> None:
    before, content = stored(server), uuid4().bytes * 100
    wrong = str(Digest.of(b"other", algorithm))
    if way == "session":
        location = repository.begin()
        refused = repository.session("PUT", location, params={"digest": wrong}, content=content)
        assert repository.session("GET", location).status_code == 404
    else:
        refused = repository.call(way, "blobs/uploads", params={"digest": wrong}, content=content)
    assert (refused.status_code, codes(refused)) == (400, ["DIGEST_INVALID"])
    assert refused.json()["errors"][0]["detail"] == {"digest": wrong}
    for digest in (wrong, Digest.of(content, algorithm)):
        assert repository.call("HEAD", f"blobs/{digest}").status_code == 404
    assert stored(server) == before


def test_truncated_bodies_publish_nothing(server: RunningServer, repository: Pushing) -> None:
    arrived = uuid4().bytes * 100
    digest = Digest.of(arrived)
    location = repository.begin()
    before = stored(server)
    # Each says the digest of what does arrive; and says that there is more.
    length = f"Content-Length: {len(arrived) + 1}"
    for method, target in (
        ("POST", f"/v2/{repository.name}/blobs/uploads/?digest={digest}"),
        ("PUT", f"/v2/{repository.name}/blobs/uploads/?digest={digest}"),
    ):
        assert raw(server, request(repository, method, target, length) + arrived, hang_up=True)[0] in (0, 400)
    assert stored(server) == before
    # Here the server is reading before anything comes: so the upload has what came once the server has stored it, which
    # goes on after the connection has ended. Nothing ended, though what came has the digest that was said.
    asks = request(repository, "PUT", f"{location}?digest={digest}", length, "Expect: 100-continue")
    raw(server, asks, awaited=arrived, hang_up=True)
    deadline = time.monotonic() + 30
    while (found := repository.session("GET", location).headers["range"]) == "0-0" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert found == f"0-{len(arrived) - 1}"

    config = uuid4().bytes
    repository.push_blob(config)
    manifest = image_of(config, [])
    lines = (f"Content-Type: {MANIFEST}", f"Content-Length: {len(manifest) + 1}")
    target = f"/v2/{repository.name}/manifests/v1"
    assert raw(server, request(repository, "PUT", target, *lines) + manifest, hang_up=True)[0] in (0, 400)
    # A chunk of a body without a length that is cut is no end either.
    chunked = (f"Content-Type: {MANIFEST}", "Transfer-Encoding: chunked")
    cut = f"{len(manifest):x}\r\n".encode() + manifest + b"\r\n"
    assert raw(server, request(repository, "PUT", target, *chunked) + cut, hang_up=True)[0] in (0, 400)
    assert repository.call("GET", "manifests/v1").status_code == 404
    assert repository.call("HEAD", f"blobs/{digest}").status_code == 404


def test_oversized_bodies(server: RunningServer, repository: Pushing) -> None:
    config = uuid4().bytes
    repository.push_blob(config)
    large = image_of(config, [], annotations={"x": "y" * BODY_MAX})

    def pieces() -> Iterator[bytes]:
        yield large

    for content in (large, pieces()):
        refused = repository.call("PUT", "manifests/v1", content=content, headers={"content-type": MANIFEST})
        assert (refused.status_code, codes(refused)) == (413, ["SIZE_INVALID"])
    assert repository.call("GET", "manifests/v1").status_code == 404
    before = stored(server)
    # A blob that is announced as too large is refused before any of it is sent.
    for target in (f"/v2/{repository.name}/blobs/uploads/?digest={Digest.of(b'x')}", repository.begin()):
        method = "POST" if "?" in target else "PATCH"
        status, body = raw(server, request(repository, method, target, "Content-Length: 1000001"))
        assert status == 413, body
        assert b"SIZE_INVALID" in body
    assert stored(server) == before


PATHS = [
    "/v2/../v0/users",
    "/v2/{name}/../../x/blobs/uploads",
    "/v2/%2e%2e/%2e%2e/etc/passwd/manifests/v1",
    "/v2/{name}%2f..%2f../tags/list",
    "/v2/{name}/%2e/tags/list",
    "/v2/{name}%00/tags/list",
    "/v2/{name}%0d%0ax/tags/list",
    "/v2/{name}\\..\\x/tags/list",
    "/v2/{name}/..%5cx/tags/list",
    "/v2/{name}/~root/tags/list",
    "/v2/{name}/%c3%bc/tags/list",
    "/v2/{name}/%ff/tags/list",
    "/v2/{name}/blobs/..%2f..%2fetc%2fpasswd",
    "/v2/{name}/blobs/sha256:..%2f..%2f",
    "/v2/{name}/blobs/uploads/..%2f..%2fx",
    "/v2/{name}/blobs/uploads/%2e%2e",
    "/v2/{name}/manifests/..%2fx",
    "/v2/{name}/manifests/%2e%2e",
    "/v2/{name}/referrers/..%2fx",
]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_tricks_in_paths(server: RunningServer, repository: Pushing, method: str) -> None:
    before = stored(server)
    for path in PATHS:
        target = path.replace("{name}", repository.name)
        status, body = raw(server, request(repository, method, target, "Content-Length: 0"))
        assert status in (400, 404, 405), (path, status, body)
        assert b'"errors"' in body or b"Invalid HTTP request" in body, (path, body)
    assert stored(server) == before


@pytest.mark.parametrize("digest", ["sha256:" + "0" * 63, "sha384:" + "0" * 96, "SHA256:" + "0" * 64, "0" * 64, ":"])
def test_references_that_are_no_digests(repository: Pushing, digest: str) -> None:
    for method, path in (("GET", f"blobs/{digest}"), ("DELETE", f"blobs/{digest}"), ("GET", f"referrers/{digest}")):
        refused = repository.call(method, path)
        assert (refused.status_code, codes(refused)) == (400, ["DIGEST_INVALID"]), path
    content = document({"schemaVersion": 2, "mediaType": INDEX, "manifests": [{"digest": digest, "size": 1}]})
    refused = repository.put_manifest("v1", content, INDEX)
    assert (refused.status_code, codes(refused)) == (400, ["MANIFEST_INVALID"])


def registry_token(server: RunningServer, world: RegistryWorld, scope: str, *, ttl_s: int) -> str:
    """Sign a token of the token service, of nobody, as it would be."""
    name, _, actions = scope.removeprefix("repository:").rpartition(":")
    grant = Grant(via="", key_id=None, access=(Pull(repository=name, actions=tuple(actions.split(","))),))
    return server.context.signer.sign(Audience.REGISTRY, "", ttl_s=ttl_s, grant=grant).text


def tokens(server: RunningServer, world: RegistryWorld, name: str) -> dict[str, str]:
    def signed(audience: Audience, subject: str, ttl_s: int = 60) -> str:
        return server.context.signer.sign(audience, subject, ttl_s=ttl_s, pull=Pull(repository=name, actions=())).text

    good = registry_token(server, world, f"repository:{name}:pull,push", ttl_s=60)
    head, payload, signature = good.split(".")
    return {
        "expired": registry_token(server, world, f"repository:{name}:pull,push", ttl_s=-60),
        "of a runner without a job": signed(Audience.RUNNER_PULL, str(uuid4())),
        "of another service": signed(Audience.SESSION, str(UUID(int=1))),
        "with another signature": f"{head}.{payload}.{signature[::-1]}",
        "without a signature": f"{head}.{payload}.",
        "with another payload": f"{head}.{payload[:-4]}AAAA.{signature}",
    }


KINDS = (
    "expired",
    "of a runner without a job",
    "of another service",
    "with another signature",
    "without a signature",
    "with another payload",
)


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_that_are_not_good(server: RunningServer, world: RegistryWorld, repository: Pushing, kind: str) -> None:
    before, manifest = stored(server), repository.push_image("v1")
    after, token = stored(server), tokens(server, world, repository.name)[kind]
    repository.client.headers.update(bearer(token))
    calls: list[Callable[[], httpx.Response]] = [
        lambda: repository.call("GET", "manifests/v1"),
        lambda: repository.call("POST", "blobs/uploads/", params={"digest": str(Digest.of(b"x"))}, content=b"x"),
        lambda: repository.put_manifest("v2", manifest),
        lambda: repository.call("DELETE", "manifests/v1"),
        lambda: repository.at(f"{world.public}").call("GET", "tags/list"),
        lambda: repository.client.get("/v2/"),
        lambda: repository.client.get("/v0/auth/oci/token"),
    ]
    for call in calls:
        refused = call()
        assert refused.status_code == 401, refused.text
        assert refused.headers["www-authenticate"].startswith("Bearer realm="), "to ask for another one"
        assert token not in refused.text
        if refused.url.path.startswith("/v2"):
            assert codes(refused) == ["UNAUTHORIZED"]
    assert stored(server) == after > before


def test_tokens_of_somebody_else(server: RunningServer, world: RegistryWorld, repository: Pushing) -> None:
    repository.push_image("v1")
    scope = f"repository:{repository.name}:pull,push"
    with server.client(None) as client:
        answer = client.get(
            "/v0/auth/oci/token",
            params={"scope": scope.replace(repository.name, world.public)},
            headers=basic(world.keys["developer"]),
        )
    # One for another repository says what to ask for instead; one of somebody who may not see the project does not.
    repository.client.headers.update(bearer(answer.json()["token"]))
    refused = repository.call("GET", "manifests/v1")
    assert (refused.status_code, codes(refused)) == (403, ["DENIED"])
    assert f'scope="repository:{repository.name}:pull"' in refused.headers["www-authenticate"]
    repository.client.headers.update(bearer(registry_token(server, world, scope, ttl_s=60)))
    refused = repository.call("GET", "manifests/v1")
    assert (refused.status_code, codes(refused)) == (401, ["UNAUTHORIZED"])
    with server.client(None) as client:
        answer = client.get("/v0/auth/oci/token", params={"scope": scope}, headers=basic(world.keys["stranger"]))
    repository.client.headers.update(bearer(answer.json()["token"]))
    for method, path in (("GET", "manifests/v1"), ("POST", "blobs/uploads/"), ("DELETE", "manifests/v1")):
        refused = repository.call(method, path)
        assert (refused.status_code, codes(refused)) == (404, ["NAME_UNKNOWN"])


def test_manifests_with_surprises(repository: Pushing) -> None:
    config = uuid4().bytes
    repository.push_blob(config)
    good = image_of(config, [])
    for bad in (
        good.replace(b'"schemaVersion": 2', b'"schemaVersion": 2.0'),
        good.replace(b'"schemaVersion": 2', b'"schemaVersion": true'),
        good.replace(b'"schemaVersion": 2', b'"schemaVersion": NaN'),
        good.replace(b'"layers"', b'"Layers"'),
        good.replace(b'"layers"', b'"Layers": [], "layers"'),
        good.replace(b'"digest"', b'"Digest": "sha256:0", "digest"'),
        good.replace(b'"layers": []', b'"layers": {}'),
        good.replace(f'"size": {len(config)}'.encode(), b'"size": -1'),
        good.replace(f'"size": {len(config)}'.encode(), b'"size": 1e3'),
        good.replace(f'"size": {len(config)}'.encode(), b'"size": 99999999999999999999'),
        b"\xef\xbb\xbf" + good,
        good.decode().encode("utf-16"),
        good + good,
    ):
        assert bad != good
        refused = repository.put_manifest("v1", bad)
        assert (refused.status_code, codes(refused)) == (400, ["MANIFEST_INVALID"]), bad
    assert repository.call("GET", "tags/list").status_code in (200, 404)
    assert repository.call("GET", "manifests/v1").status_code == 404
