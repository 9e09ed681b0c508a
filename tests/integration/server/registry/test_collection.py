"""What nothing needs goes, what anything needs stays, and what the storage spoils is found and repaired."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from tests.integration.server.registry.pushing import INDEX, Pushing, codes, image_of, index_of, pushing
from tests.integration.server.registry_world import make_world
from typer.testing import CliRunner

from metalmark.cli.registry import app
from metalmark.model import Digest, StableError
from metalmark.server import Collected, Scrub, Scrubbed, ServerContext, collect
from metalmark.server.orphan_sweep import OrphanSweep
from metalmark.store import REGISTRY_PREFIX, erase_project, find_parts, stored_blobs
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


def scrubbed(server: RunningServer) -> Scrubbed:
    async def run(context: ServerContext) -> Scrubbed:
        return await Scrub(context.store, context.blobs, context.clock).run()

    return server.call(run)


def stored_keys(server: RunningServer) -> set[str]:
    async def read(context: ServerContext) -> set[str]:
        return {found.key for found in await context.blobs.below(REGISTRY_PREFIX)}

    return server.call(read)


def keys_of(server: RunningServer, digest: Digest) -> list[str]:
    async def read(context: ServerContext) -> list[str]:
        async with context.store.read() as connection:
            (blob,) = [each for each in await stored_blobs(connection, after=None, limit=1000) if each.digest == digest]
            return [part.key for part in await find_parts(connection, content_id=blob.content_id)]

    return server.call(read)


def overwrite(server: RunningServer, key: str, content: bytes | None) -> None:
    async def spoil(context: ServerContext) -> None:
        if content is None:
            await context.blobs.delete(key)
        else:
            await context.blobs.put(key, content)

    server.call(spoil)


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
        await context.store.write(lambda connection: erase_project(connection, project_id=world.private_id))

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


@pytest.mark.parametrize("spoiled", [b"other bytes", None], ids=["changed", "lost"])
def test_a_scrub_finds_what_a_push_repairs(server: RunningServer, repository: Pushing, spoiled: bytes | None) -> None:
    config, layer = uuid4().bytes, uuid4().bytes * 100
    repository.push_blob(config)
    digest = repository.push_blob(layer)
    image = image_of(config, [layer])
    repository.push_manifest(image, "v1")
    assert scrubbed(server).damage == ()
    (key,) = keys_of(server, digest)
    overwrite(server, key, spoiled)
    (damage,) = scrubbed(server).damage
    assert (damage.kind, damage.digest, damage.repositories) == ("blob", digest, (repository.name,))
    # Clients are told that it is not there, so that they push it again; nothing else is built upon it.
    assert codes(repository.call("GET", f"blobs/{digest}")) == ["BLOB_UNKNOWN"]
    assert codes(repository.put_manifest("v2", image)) == ["MANIFEST_BLOB_UNKNOWN"]
    assert len(scrubbed(server).damage) == 1
    repository.push_blob(layer)
    assert repository.call("GET", f"blobs/{digest}").content == layer
    assert scrubbed(server).damage == ()
    repository.push_manifest(image, "v2")


def test_what_was_only_away_is_sound_again(server: RunningServer, repository: Pushing) -> None:
    content = uuid4().bytes
    digest = repository.push_blob(content)
    (key,) = keys_of(server, digest)
    overwrite(server, key, None)
    assert len(scrubbed(server).damage) == 1
    overwrite(server, key, content)
    found = scrubbed(server)
    assert (found.damage, found.recovered) == ((), 1)
    assert repository.call("GET", f"blobs/{digest}").content == content


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
    assert json.loads(run("scrub", "--json"))["damage"] == []
