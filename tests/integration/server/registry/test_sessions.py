"""Uploads over several processes of the server, over its restart, and over connections that break; and its bounds."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from tests.integration.server.object_stores import STORES, Bucket, bucket, object_store
from tests.integration.server.registry.pushing import INDEX, Pushing, codes, image_of, index_of, pushing, ranged
from tests.integration.server.registry_world import RegistryWorld, make_world

from metalmark.model import Digest
from metalmark.testing.postgresql import Cluster
from metalmark.testing.running_server import RunningServer, running_server

MIB = 1024 * 1024


@contextmanager
def seen(server: RunningServer, world: RegistryWorld, name: str = "") -> Iterator[Pushing]:
    with server.client(None) as client:
        yield pushing(client, world, name=name)


def test_an_upload_lands_on_two_servers(postgresql_with_tables: Cluster, tmp_path: Path) -> None:
    chunks = [uuid4().bytes * 70_000, uuid4().bytes * 70_000, uuid4().bytes * 5]
    whole, storage = b"".join(chunks), str(tmp_path / "storage")
    with ExitStack() as stack:
        url = stack.enter_context(postgresql_with_tables.database())
        one = stack.enter_context(running_server(tmp_path / "one", database=url, storage=storage))
        two = stack.enter_context(running_server(tmp_path / "two", database=url, storage=storage, has_users=True))
        world = make_world(one)
        first = stack.enter_context(seen(one, world))
        second = stack.enter_context(seen(two, world, first.name))
        for algorithm in ("sha256", "sha512"):
            location, start = first.begin(), 0
            for number, chunk in enumerate(chunks):
                where = (first, second)[number % 2]
                sent = where.session("PATCH", location, content=chunk, headers=ranged(start, chunk))
                start += len(chunk)
                assert (sent.status_code, sent.headers["range"]) == (202, f"0-{start - 1}"), sent.text
            digest = Digest.of(whole, algorithm)
            wrong = second.begin()
            second.session("PATCH", wrong, content=whole)
            # The one that did not take it in finds out as well.
            refused = first.session("PUT", wrong, params={"digest": str(Digest.of(b"", algorithm))})
            assert codes(refused) == ["DIGEST_INVALID"]
            assert second.session("PUT", location, params={"digest": str(digest)}).status_code == 201
            assert first.call("GET", f"blobs/{digest}").content == whole


def test_an_upload_goes_on_after_a_restart(tmp_path: Path) -> None:
    folder, halves = tmp_path / "server", [uuid4().bytes * 50_000, uuid4().bytes * 50_000]
    with running_server(folder) as server:
        world = make_world(server)
        with seen(server, world) as repository:
            name, location = repository.name, repository.begin()
            repository.session("PATCH", location, content=halves[0])
    with running_server(folder) as server, seen(server, world, name) as repository:
        assert repository.session("GET", location).headers["range"] == f"0-{len(halves[0]) - 1}"
        digest = Digest.of(b"".join(halves))
        done = repository.session("PUT", location, params={"digest": str(digest)}, content=halves[1])
        assert done.status_code == 201, done.text
        assert repository.call("GET", f"blobs/{digest}").content == b"".join(halves)


def send_some(repository: Pushing, method: str, target: str, content: bytes, announced: int) -> None:
    """Send a request that says more than it has, and hang up."""
    place = urlsplit(str(repository.client.base_url))
    lines = [
        f"{method} {target} HTTP/1.1",
        f"Host: {place.netloc}",
        f"Authorization: {repository.client.headers['authorization']}",
        f"Content-Length: {announced}",
        "",
        "",
    ]
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=30) as connection:
        connection.sendall("\r\n".join(lines).encode() + content)


def until_arrived(repository: Pushing, location: str, size: int) -> None:
    deadline = time.monotonic() + 60
    while repository.session("GET", location).headers["range"] != f"0-{size - 1}":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_came_before_a_connection_broke_is_kept(repository: Pushing) -> None:
    whole = uuid4().bytes * 200_000
    location, digest = repository.begin(), Digest.of(whole)
    send_some(repository, "PATCH", location, whole[:MIB], len(whole))
    until_arrived(repository, location, MIB)
    # A last chunk that is cut ends nothing either.
    send_some(repository, "PUT", f"{location}?digest={digest}", whole[MIB : 2 * MIB], len(whole) - MIB)
    until_arrived(repository, location, 2 * MIB)
    assert repository.call("HEAD", f"blobs/{digest}").status_code == 404
    rest = whole[2 * MIB :]
    done = repository.session(
        "PUT", location, params={"digest": str(digest)}, content=rest, headers=ranged(2 * MIB, rest)
    )
    assert done.status_code == 201, done.text
    assert repository.call("GET", f"blobs/{digest}").content == whole


@pytest.fixture
def bounded(tmp_path: Path) -> Iterator[Pushing]:
    """A repository of a server with narrow bounds."""
    bounds: dict[str, Any] = {"layer_max_bytes": 10_000, "project_max_bytes": 28_500, "sparse_indexes": True}
    with running_server(tmp_path / "server", settings={"registry": bounds}) as server:
        with seen(server, make_world(server)) as repository:
            yield repository


def test_blobs_and_projects_have_bounds(bounded: Pushing) -> None:
    large = uuid4().bytes * 626

    def pieces() -> Iterator[bytes]:
        yield large

    for content in (large, pieces()):
        location = bounded.begin()
        refused = bounded.session("PATCH", location, content=content)
        assert (refused.status_code, codes(refused)) == (413, ["SIZE_INVALID"])
        assert bounded.session("GET", location).headers["range"] == "0-0"
        bounded.session("DELETE", location)
    whole = bounded.call("POST", "blobs/uploads/", params={"digest": str(Digest.of(large))}, content=large)
    assert (whole.status_code, codes(whole)) == (413, ["SIZE_INVALID"])

    config, layer = uuid4().bytes * 500, uuid4().bytes * 600
    bounded.push_blob(config)
    bounded.push_blob(layer)
    bounded.push_manifest(image_of(config, [layer]), "v1")
    # The same blob again, in another repository too, costs nothing once it is there.
    bounded.at(f"{bounded.name}/other").push_blob(layer)
    bounded.push_blob(large[1:8001])
    more = Digest.of(large[:8000])
    over = bounded.session("PUT", bounded.begin(), params={"digest": str(more)}, content=large[:8000])
    assert over.status_code == 403, (over.text, over.headers)
    assert codes(over) == ["DENIED"]
    assert bounded.call("HEAD", f"blobs/{more}").status_code == 404
    bounded.push_blob(large[:500])


def test_sparse_indexes_where_they_are_allowed(bounded: Pushing) -> None:
    bounded.push_manifest(index_of([b"not here"]), "sparse", media_type=INDEX)
    assert bounded.tags() == ["sparse"]


@pytest.fixture(scope="module", params=STORES)
def objects(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    folder = tmp_path_factory.mktemp("objects") / "store"
    with object_store(request.param, folder) as store, bucket(store) as made:
        yield made


def test_images_in_an_object_store(objects: Bucket, tmp_path: Path) -> None:
    config, layer = uuid4().bytes, uuid4().bytes * (6 * MIB // 16)
    with running_server(tmp_path / "server", storage=objects.storage) as server:
        with seen(server, make_world(server)) as repository:
            location, start = repository.begin(), 0
            for chunk in (layer[: 5 * MIB], layer[5 * MIB :]):
                repository.session("PATCH", location, content=chunk, headers=ranged(start, chunk))
                start += len(chunk)
            done = repository.session("PUT", location, params={"digest": str(Digest.of(layer))})
            assert done.status_code == 201, done.text
            repository.push_blob(config)
            repository.push_manifest(image_of(config, [layer]), "v1")
            assert repository.call("GET", f"blobs/{Digest.of(layer)}").content == layer
            wanted = {"range": f"bytes={5 * MIB - 10}-{5 * MIB + 9}"}
            part = repository.call("GET", f"blobs/{Digest.of(layer)}", headers=wanted)
            assert (part.status_code, part.content) == (206, layer[5 * MIB - 10 : 5 * MIB + 10])
            stored = objects.keys()
            assert len([key for key in stored if "registry" in key]) == 3
