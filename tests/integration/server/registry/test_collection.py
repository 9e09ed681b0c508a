"""What nothing needs goes, and what anything needs stays."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from tests.integration.server.registry.pushing import (
    INDEX,
    Pushing,
    codes,
    image_of,
    index_of,
    pushing,
)
from tests.integration.server.registry.stored import keys_of, overwrite, stored_keys
from tests.integration.server.registry_world import make_world
from typer.testing import CliRunner

from metalmark.cli.registry import app
from metalmark.model import Digest, InputError, StableError
from metalmark.server import Collected, ServerContext, collect
from metalmark.server.orphan_sweep import OrphanSweep
from metalmark.store import REGISTRY_PREFIX, erase_project
from metalmark.system import SystemClock
from metalmark.testing.running_server import RunningServer

DAY = timedelta(days=1)


class Later(SystemClock):
    """The machine's clock, ahead by some time."""

    def __init__(self, ahead: timedelta) -> None:
        super().__init__()
        self._ahead = ahead

    def now(self) -> datetime:
        return super().now() + self._ahead


def collected(server: RunningServer, *, after: timedelta) -> Collected:
    async def run(context: ServerContext) -> Collected:
        return await collect(context.store, context.blobs, Later(after), context.config.registry)

    return server.call(run)


def clean(server: RunningServer) -> None:
    """Collect what other tests left, until nothing is left of it."""
    for _ in range(3):
        collected(server, after=3 * DAY)
    assert collected(server, after=3 * DAY).is_nothing


def test_blobs_without_a_manifest_go_when_their_lease_is_over(server: RunningServer, repository: Pushing) -> None:
    clean(server)
    before = stored_keys(server)
    named = repository.push_image("v1")
    kept = stored_keys(server) - before
    spare = repository.push_blob(b"spare" * 100)
    assert len(stored_keys(server) - before - kept) == 1
    assert collected(server, after=DAY / 2).is_nothing
    assert repository.call("HEAD", f"blobs/{spare}").status_code == 200
    done = collected(server, after=1.01 * DAY)
    assert (done.unlinked, done.blobs, done.deleted_bytes) == (1, 1, 0)
    assert repository.call("HEAD", f"blobs/{spare}").status_code == 404
    # Whoever is reading it just now comes to the end.
    assert len(stored_keys(server) - before - kept) == 1
    assert collected(server, after=2 * DAY).deleted_bytes == 500
    assert stored_keys(server) - before == kept
    # Pushed again, it is there again.
    assert repository.push_blob(b"spare" * 100) == spare
    assert repository.call("GET", f"blobs/{spare}").content == b"spare" * 100
    assert repository.call("GET", "manifests/v1").content == named
    for layer in json.loads(named)["layers"]:
        assert repository.call("GET", f"blobs/{layer['digest']}").status_code == 200


def test_whoever_asks_for_a_blob_has_time_to_name_it(server: RunningServer, repository: Pushing) -> None:
    content = uuid4().bytes
    digest = repository.push_blob(content)

    async def age(context: ServerContext) -> None:
        from metalmark.store import RepositoryPlace, touch_blob
        from metalmark.store.tables import registry_repositories

        async def work(connection: object) -> None:
            from sqlalchemy import select

            rows = await connection.execute(select(registry_repositories))  # type: ignore[attr-defined]
            for row in rows:
                place = RepositoryPlace(project_id=row.project_id, inner=row.inner)
                await touch_blob(connection, place, digest, now=context.clock.now() - DAY / 2)  # type: ignore[arg-type]

        await context.store.write(work)  # type: ignore[arg-type]

    server.call(age)
    assert repository.call("HEAD", f"blobs/{digest}").status_code == 200
    collected(server, after=DAY * 0.6)
    repository.push_manifest(image_of(content, []), "v1")
    server.call(age)
    collected(server, after=3 * DAY)
    assert repository.call("GET", f"blobs/{digest}").content == content


def test_deleted_images_give_their_bytes_back(server: RunningServer, repository: Pushing) -> None:
    clean(server)
    before = stored_keys(server)
    shared = uuid4().bytes
    repository.push_blob(shared)
    images = [image_of(shared, [uuid4().bytes]) for _ in range(2)]
    for image in images:
        # The layer is the image's own.
        assert codes(repository.put_manifest("x", image)) == ["MANIFEST_BLOB_UNKNOWN"]
    layers = [uuid4().bytes for _ in range(2)]
    for layer in layers:
        repository.push_blob(layer)
    images = [image_of(shared, [layer]) for layer in layers]
    for number, image in enumerate(images):
        repository.push_manifest(image, f"v{number}")
    index = index_of(images)
    repository.push_manifest(index, "all", media_type=INDEX)
    assert collected(server, after=2 * DAY).is_nothing
    repository.call("DELETE", f"manifests/{Digest.of(index)}")
    repository.call("DELETE", f"manifests/{Digest.of(images[0])}")
    collected(server, after=2 * DAY)
    collected(server, after=4 * DAY)
    assert len(stored_keys(server) - before) == 2
    assert repository.call("GET", f"blobs/{Digest.of(shared)}").content == shared
    assert repository.call("GET", f"blobs/{Digest.of(layers[1])}").content == layers[1]
    assert repository.call("HEAD", f"blobs/{Digest.of(layers[0])}").status_code == 404


def test_blobs_of_a_deleted_manifest_have_a_lease_again(server: RunningServer, repository: Pushing) -> None:
    clean(server)
    image = repository.push_image("v1")
    # Their leases are over, and a manifest names them: nobody looks at them any more.
    assert collected(server, after=3 * DAY).is_nothing
    layer = json.loads(image)["layers"][0]["digest"]
    assert repository.call("HEAD", f"blobs/{layer}").status_code == 200
    assert repository.call("DELETE", f"manifests/{Digest.of(image)}").status_code == 202
    # Whoever was told just before that it is there has the time to name it.
    assert collected(server, after=DAY / 2).is_nothing
    assert repository.call("HEAD", f"blobs/{layer}").status_code == 200
    repository.push_manifest(image, "v2")
    assert collected(server, after=3 * DAY).is_nothing
    repository.call("DELETE", f"manifests/{Digest.of(image)}")
    assert collected(server, after=1.01 * DAY).unlinked == 2
    assert repository.call("HEAD", f"blobs/{layer}").status_code == 404


def test_a_blob_stays_until_its_last_repository_lets_go(server: RunningServer, repository: Pushing) -> None:
    clean(server)
    content = uuid4().bytes
    digest = repository.push_blob(content)
    other = repository.at(f"{repository.name}/other")
    other.push_blob(content)
    for last in (False, True):
        place = other if last else repository
        assert place.call("DELETE", f"blobs/{digest}").status_code == 202
        assert collected(server, after=timedelta(seconds=1)).blobs == int(last)
        assert other.call("GET", f"blobs/{digest}").status_code == (404 if last else 200)
    # Mounted or pushed again before a collection came, it has never been away.
    repository.push_blob(content)
    repository.call("DELETE", f"blobs/{digest}")
    other.push_blob(content)
    assert collected(server, after=timedelta(seconds=1)).is_nothing
    assert other.call("GET", f"blobs/{digest}").content == content


def test_uploads_that_lie_still_end(server: RunningServer, repository: Pushing) -> None:
    clean(server)
    before = stored_keys(server)
    location = repository.begin()
    repository.session("PATCH", location, content=b"x" * 1000)
    assert collected(server, after=DAY / 2).is_nothing
    assert repository.session("GET", location).status_code == 204
    assert collected(server, after=1.01 * DAY).uploads == 1
    assert codes(repository.session("PATCH", location, content=b"x")) == ["BLOB_UPLOAD_UNKNOWN"]
    assert collected(server, after=2 * DAY).deleted_bytes == 1000
    assert stored_keys(server) == before


def test_images_go_with_their_project(server: RunningServer) -> None:
    clean(server)
    before = stored_keys(server)
    world = make_world(server)
    with server.client(None) as client:
        repository = pushing(client, world)
        image = repository.push_image("v1")
        repository.push_manifest(index_of([image]), "all", media_type=INDEX)
        repository.session("PATCH", repository.begin(), content=b"unfinished")

    async def erase(context: ServerContext) -> None:
        now = context.clock.now()
        await context.store.write(lambda connection: erase_project(connection, project_id=world.private_id, now=now))

    server.call(erase)
    assert collected(server, after=timedelta(seconds=1)).blobs == 2
    collected(server, after=DAY)
    assert stored_keys(server) == before


def test_what_is_pushed_twice_is_stored_once(server: RunningServer, repository: Pushing) -> None:
    content = uuid4().bytes * 1000
    repository.push_blob(content)
    once = stored_keys(server)
    repository.push_blob(content)
    repository.at(f"{repository.name}/other").push_blob(content)
    assert stored_keys(server) == once


def test_parts_of_a_killed_server_are_swept(
    server: RunningServer, repository: Pushing, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.push_image("v1")
    kept = stored_keys(server)
    overwrite(server, f"{REGISTRY_PREFIX}/00/{uuid4()}", b"of an upload that was never written down")

    async def sweep(context: ServerContext) -> int:
        return await OrphanSweep(context).sweep()

    server.call(sweep)
    assert len(stored_keys(server)) == len(kept) + 1, "it is new"
    monkeypatch.setattr("metalmark.server.orphan_sweep.KEPT", timedelta(seconds=-60))
    server.call(sweep)
    assert stored_keys(server) == kept


@pytest.mark.parametrize("what", ["project", "organization"])
def test_images_go_with_their_project_when_it_is_deleted_softly(server: RunningServer, what: str) -> None:
    clean(server)
    before = stored_keys(server)
    world = make_world(server)
    with server.client(None) as client, server.client() as admin:
        repository = pushing(client, world)
        image = repository.push_image("v1")
        repository.push_manifest(index_of([image]), "all", media_type=INDEX)
        location = repository.begin()
        repository.session("PATCH", location, content=b"unfinished")
        project = admin.get(f"/v0/projects/{world.private}").json()
        target = f"projects/{world.private}" if what == "project" else f"organizations/{project['organization']}"
        deleted = admin.delete(f"/v0/{target}")
        assert deleted.status_code == 204, deleted.text
        # A push that was under way ends there.
        refused = repository.session("PATCH", location, content=b"more")
        assert (refused.status_code, codes(refused)) == (404, ["NAME_UNKNOWN"])
    assert collected(server, after=timedelta(seconds=1)).blobs == 2
    collected(server, after=DAY)
    assert stored_keys(server) == before


def test_commands_of_an_operator(
    server: RunningServer, repository: Pushing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METALMARK_HOME", str(tmp_path / "home"))
    place = ["--database", server.context.database, "--storage", server.context.storage]

    def run(*words: str) -> str:
        outcome = CliRunner().invoke(app, [*words, *place], catch_exceptions=False, standalone_mode=False)
        if outcome.exception is not None:
            raise outcome.exception
        return outcome.stdout

    clean(server)
    content = uuid4().bytes * 100
    before = json.loads(run("stats", "--json"))
    digest = repository.push_blob(content)
    repository.at(f"{repository.name}/other").push_blob(content)
    after = json.loads(run("stats", "--json"))
    assert after["blobs"] - before["blobs"] == 1
    assert after["blob_bytes"] - before["blob_bytes"] == 1600
    assert after["visible_bytes"] - before["visible_bytes"] == 3200
    project = repository.name.partition("/")[0]
    assert project in [each["project"] for each in after["projects"]]
    assert project in run("stats")
    assert json.loads(run("gc", "--json")) == {"uploads": 0, "unlinked": 0, "blobs": 0, "deleted_bytes": 0}
    assert json.loads(run("scrub", "--json"))["damage"] == []
    (key,) = keys_of(server, digest)
    overwrite(server, key, b"")
    with pytest.raises(StableError, match="1 blobs or manifests are damaged"):
        run("scrub")
    repository.push_blob(content)
    assert json.loads(run("scrub", "--json", "--rate", "1G"))["damage"] == []
    for rate in ("0", "fast"):
        with pytest.raises(InputError, match="--rate"):
            run("scrub", "--rate", rate)
