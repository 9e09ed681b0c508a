"""Several clients at once, on one process of the server and on two: the last one wins, and nothing is half there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from threading import Barrier
from typing import Any, TypeVar
from uuid import UUID, uuid4

import httpx
import pytest
from tests.integration.server.registry.pushing import Pushing, codes, image_of, pushing, ranged
from tests.integration.server.registry_world import bearer, make_world

from metalmark.model import Digest, parse_resource_id
from metalmark.server import ServerContext
from metalmark.store import (
    Connection,
    RepositoryPlace,
    UploadRecord,
    find_project,
    find_upload,
    publish_blob,
    registry_bytes,
)
from metalmark.testing.postgresql import Cluster
from metalmark.testing.running_server import RunningServer, running_server

T = TypeVar("T")
QUOTA = 20_000
SETTINGS = {"registry": {"project_max_bytes": QUOTA}}


@pytest.fixture(scope="module", params=["one process, sqlite", "two processes, postgresql"])
def servers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RunningServer, RunningServer]]:
    """Two servers on one database and storage; the same one twice where the engine takes only one."""
    folder = tmp_path_factory.mktemp("servers")
    with ExitStack() as stack:
        if request.param == "one process, sqlite":
            server = stack.enter_context(running_server(folder / "one", settings=SETTINGS))
            yield server, server
            return
        cluster: Cluster = request.getfixturevalue("postgresql_with_tables")
        place: dict[str, Any] = {
            "database": stack.enter_context(cluster.database()),
            "storage": str(folder / "storage"),
        }
        one = stack.enter_context(running_server(folder / "one", settings=SETTINGS, **place))
        two = stack.enter_context(running_server(folder / "two", settings=SETTINGS, has_users=True, **place))
        yield one, two


@pytest.fixture
def seen_twice(servers: tuple[RunningServer, RunningServer]) -> Iterator[tuple[Pushing, Pushing]]:
    """One new repository of a new project, through either server."""
    world = make_world(servers[0])
    with servers[0].client(None) as first, servers[1].client(None) as second:
        one = pushing(first, world)
        yield one, pushing(second, world, name=one.name)


def at_once(*works: Callable[[], T]) -> list[T]:
    """Do things at the same time, as far as threads can."""
    start = Barrier(len(works))

    def run(work: Callable[[], T]) -> T:
        start.wait(30)
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(run, works))


def own_image(repository: Pushing) -> bytes:
    """Push the blobs of a new image, and return its manifest."""
    config, layer = uuid4().bytes, uuid4().bytes
    repository.push_blob(config)
    repository.push_blob(layer)
    return image_of(config, [layer])


def read_whole(repository: Pushing, reference: str) -> bytes:
    """Read an image, and be sure that it is whole."""
    answer = repository.call("GET", f"manifests/{reference}")
    assert answer.status_code == 200, answer.text
    assert str(Digest.of(answer.content)) == answer.headers["docker-content-digest"]
    manifest = json.loads(answer.content)
    for entry in (manifest["config"], *manifest["layers"]):
        blob = repository.call("GET", f"blobs/{entry['digest']}")
        assert str(Digest.of(blob.content)) == entry["digest"]
    return answer.content


def test_pushes_of_one_tag(seen_twice: tuple[Pushing, Pushing]) -> None:
    pushers = [seen_twice[number % 2] for number in range(6)]
    images = [[own_image(pusher) for _ in range(3)] for pusher in pushers]
    before = own_image(seen_twice[0])
    seen_twice[0].push_manifest(before, "latest")

    def push(pusher: Pushing, manifests: Sequence[bytes]) -> list[bytes]:
        for manifest in manifests:
            pusher.push_manifest(manifest, "latest")
        return []

    def read(reader: Pushing) -> list[bytes]:
        return [read_whole(reader, "latest") for _ in range(10)]

    works = [partial(push, *pair) for pair in zip(pushers, images, strict=True)]
    works += [partial(read, reader) for reader in seen_twice]
    read_meanwhile = {manifest for found in at_once(*works) for manifest in found}
    pushed = {manifest for manifests in images for manifest in manifests}
    assert read_meanwhile <= pushed | {before}
    # Both agree which was the last, one of the last of somebody; and each image is there under its digest.
    (found,) = {read_whole(repository, "latest") for repository in seen_twice}
    assert found in {manifests[-1] for manifests in images}
    assert all(repository.tags() == ["latest"] for repository in seen_twice)
    for manifest in pushed | {before}:
        assert read_whole(seen_twice[1], str(Digest.of(manifest))) == manifest
    seen_twice[1].push_manifest(before, "latest")
    assert read_whole(seen_twice[0], "latest") == before


def test_one_manifest_is_pushed_by_all_under_names_of_their_own(seen_twice: tuple[Pushing, Pushing]) -> None:
    manifest = own_image(seen_twice[0])
    tags = [f"t{number}" for number in range(8)]
    at_once(*(partial(seen_twice[number % 2].push_manifest, manifest, tag) for number, tag in enumerate(tags)))
    assert seen_twice[0].tags() == tags
    assert {read_whole(seen_twice[1], tag) for tag in tags} == {manifest}


def test_one_blob_is_pushed_by_all(
    servers: tuple[RunningServer, RunningServer], seen_twice: tuple[Pushing, Pushing]
) -> None:
    content = uuid4().bytes * 100
    places = [seen_twice[number % 2].at(f"{seen_twice[0].name}/{number // 4}") for number in range(8)]
    digests = at_once(*(partial(place.push_blob, content) for place in places))
    assert set(digests) == {Digest.of(content)}
    for place in places:
        assert place.call("GET", f"blobs/{digests[0]}").content == content
    # Each of the project's blobs counts once, and what was too much is gone.
    assert bytes_of(servers[0], seen_twice[0]) == len(content)


def bytes_of(server: RunningServer, repository: Pushing) -> int:
    """What the tables say that the project of a repository has."""
    slug = repository.name.partition("/")[0]

    async def read(context: ServerContext) -> int:
        async with context.store.read() as connection:
            project = await find_project(connection, parse_resource_id(slug))
            assert project is not None
            return await registry_bytes(connection, project_id=project.id)

    return server.call(read)


def test_one_chunk_is_sent_by_all(seen_twice: tuple[Pushing, Pushing]) -> None:
    chunk, last = uuid4().bytes * 50, uuid4().bytes
    location = seen_twice[0].begin()

    def send(repository: Pushing) -> httpx.Response:
        return repository.session("PATCH", location, content=chunk, headers=ranged(0, chunk))

    answers = at_once(*(partial(send, seen_twice[number % 2]) for number in range(6)))
    # One is taken; the others learn how far it was when they were refused, and what they sent is nowhere.
    assert sorted(answer.status_code for answer in answers) == [202] + [416] * 5
    whole = f"0-{len(chunk) - 1}"
    for answer in answers:
        assert answer.headers["location"] == location
        assert answer.headers["range"] in ({whole} if answer.status_code == 202 else {whole, "0-0"})
        if answer.status_code == 416:
            assert codes(answer) == ["BLOB_UPLOAD_INVALID"]
    assert seen_twice[1].session("GET", location).headers["range"] == whole
    digest = Digest.of(chunk + last)

    def end(repository: Pushing) -> httpx.Response:
        return repository.session(
            "PUT", location, params={"digest": str(digest)}, content=last, headers=ranged(len(chunk), last)
        )

    ends = at_once(*(partial(end, repository) for repository in seen_twice))
    assert 201 in [answer.status_code for answer in ends]
    assert {answer.status_code for answer in ends} <= {201, 404, 416}
    assert seen_twice[1].call("GET", f"blobs/{digest}").content == chunk + last


def test_what_came_after_a_digest_was_taken_is_not_the_blobs(
    servers: tuple[RunningServer, RunningServer], seen_twice: tuple[Pushing, Pushing]
) -> None:
    content = uuid4().bytes
    digest, location = Digest.of(content), seen_twice[0].begin()
    identifier = UUID(location.rpartition("/")[2])
    project, _, inner = seen_twice[0].name.partition("/")

    async def checked(context: ServerContext) -> tuple[RepositoryPlace, UploadRecord]:
        async with context.store.read() as connection:
            record = await find_project(connection, parse_resource_id(project))
            assert record is not None
            place = RepositoryPlace(project_id=record.id, inner=inner)
            upload = await find_upload(connection, place, identifier)
            assert upload is not None
            return place, upload

    async def publish(context: ServerContext, place: RepositoryPlace, upload: UploadRecord) -> None:
        size = upload.size_bytes

        async def work(connection: Connection) -> bool:
            return await publish_blob(
                connection,
                place,
                digest,
                content_id=upload.content_id,
                size_bytes=size,
                upload=upload,
                now=context.clock.now(),
            )

        await context.store.write(work)

    assert seen_twice[0].session("PATCH", location, content=content).status_code == 202
    place, upload = servers[0].call(checked)
    # Between the digest and the row of the blob, another request goes on with the upload.
    assert seen_twice[1].session("PATCH", location, content=b"more").status_code == 202
    with pytest.raises(LookupError):
        servers[0].call(partial(publish, place=place, upload=upload))
    assert seen_twice[0].call("HEAD", f"blobs/{digest}").status_code == 404
    whole = Digest.of(content + b"more")
    answer = seen_twice[0].session("PUT", location, params={"digest": str(whole)})
    assert answer.status_code == 201
    assert seen_twice[1].call("GET", f"blobs/{whole}").content == content + b"more"


def test_a_blob_is_deleted_while_manifests_come_to_name_it(seen_twice: tuple[Pushing, Pushing]) -> None:
    for _ in range(8):
        config = uuid4().bytes
        digest = seen_twice[0].push_blob(config)
        manifest = image_of(config, [])
        put, deleted = at_once(
            partial(seen_twice[0].put_manifest, "v1", manifest),
            partial(seen_twice[1].call, "DELETE", f"blobs/{digest}"),
        )
        outcome = (put.status_code, deleted.status_code)
        # One was first, and the other was told so.
        assert outcome in ((201, 405), (400, 202)), (put.text, deleted.text)
        if put.status_code == 201:
            assert read_whole(seen_twice[1], str(Digest.of(manifest))) == manifest
        else:
            assert codes(put) == ["MANIFEST_BLOB_UNKNOWN"]


def test_an_image_is_deleted_while_it_gets_a_tag(seen_twice: tuple[Pushing, Pushing]) -> None:
    for _ in range(5):
        manifest = own_image(seen_twice[0])
        digest = seen_twice[0].push_manifest(manifest)
        tagged, deleted = at_once(
            partial(seen_twice[0].put_manifest, "v1", manifest),
            partial(seen_twice[1].call, "DELETE", f"manifests/{digest}"),
        )
        assert (tagged.status_code, deleted.status_code) == (201, 202), (tagged.text, deleted.text)
        # A tag stands for an image that is there, or there is no such tag.
        by_tag = seen_twice[0].call("HEAD", "manifests/v1").status_code
        assert by_tag == seen_twice[1].call("HEAD", f"manifests/{digest}").status_code
        assert seen_twice[0].tags() == (["v1"] if by_tag == 200 else [])


def test_a_project_is_made_by_the_first_pushes(servers: tuple[RunningServer, RunningServer]) -> None:
    world = make_world(servers[0])
    name = f"{uuid4().hex[:12]}x/app"
    with ExitStack() as stack:
        clients = [stack.enter_context(server.client(None)) for server in (*servers, *servers)]
        for client in clients:
            client.headers.update(bearer(world.keys["stranger"]))
        seen = [Pushing(client=client, name=name) for client in clients]
        contents = [uuid4().bytes for _ in seen]
        at_once(*(partial(each.push_blob, content) for each, content in zip(seen, contents, strict=True)))
        for content in contents:
            assert seen[0].call("GET", f"blobs/{Digest.of(content)}").content == content


def test_a_projects_bound_holds(
    servers: tuple[RunningServer, RunningServer], seen_twice: tuple[Pushing, Pushing]
) -> None:
    contents = [uuid4().bytes * 250 for _ in range(8)]

    def push(number: int) -> int:
        repository, content = seen_twice[number % 2], contents[number]
        begun = repository.call("POST", "blobs/uploads/")
        if begun.status_code != 202:
            assert codes(begun) == ["DENIED"]
            return begun.status_code
        answer = repository.session(
            "PUT", begun.headers["location"], params={"digest": str(Digest.of(content))}, content=content
        )
        if answer.status_code != 201:
            assert (answer.status_code, codes(answer)) == (403, ["DENIED"])
            repository.session("DELETE", begun.headers["location"])
        return answer.status_code

    taken = at_once(*(partial(push, number) for number in range(8))).count(201)
    # Of 4000 bytes each; some may be refused for what others had begun and did not end.
    assert 1 <= taken <= QUOTA // 4000
    assert bytes_of(servers[0], seen_twice[0]) == taken * 4000
    while taken < QUOTA // 4000:
        seen_twice[1].push_blob(uuid4().bytes * 250)
        taken += 1
    over = seen_twice[0].call("POST", "blobs/uploads/")
    assert (over.status_code, codes(over)) == (403, ["DENIED"])


def test_uploads_that_are_open_do_not_take_more_than_the_bound(
    servers: tuple[RunningServer, RunningServer], seen_twice: tuple[Pushing, Pushing]
) -> None:
    locations = [seen_twice[number % 2].begin() for number in range(8)]
    chunk = uuid4().bytes * 250

    def send(number: int) -> int:
        answer = seen_twice[number % 2].session("PATCH", locations[number], content=chunk)
        if answer.status_code != 202:
            assert (answer.status_code, codes(answer)) == (403, ["DENIED"])
        return answer.status_code

    taken = at_once(*(partial(send, number) for number in range(8))).count(202)
    assert 1 <= taken <= QUOTA // 4000
    assert bytes_of(servers[1], seen_twice[0]) == taken * 4000
