"""What storage or database spoil is found, by scrubs and by whoever pulls it, and the next push repairs it."""

from __future__ import annotations

from contextlib import suppress
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import update
from tests.integration.server.registry.pushing import Pushing, codes, image_of, ranged
from tests.integration.server.registry.stored import keys_of, overwrite, scrubbed

from metalmark.model import Digest
from metalmark.server import ServerContext
from metalmark.store.tables import registry_manifests
from metalmark.testing.running_server import RunningServer

PRESENT = "probes/present"


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


def test_a_manifest_that_the_database_changed_is_found_and_pushed_again(
    server: RunningServer, repository: Pushing
) -> None:
    manifest = repository.push_image("v1")
    digest = Digest.of(manifest)

    async def spoil(context: ServerContext) -> None:
        manifests = registry_manifests
        change = update(manifests).where(manifests.c.digest == str(digest)).values(content=manifest[:-1] + b" ")
        await context.store.write(lambda connection: connection.execute(change))

    server.call(spoil)
    # Nobody is given it, whether or not a scrub has come by.
    for reference in ("v1", str(digest)):
        for method in ("GET", "HEAD"):
            assert repository.call(method, f"manifests/{reference}").status_code == 404
    assert codes(repository.call("GET", "manifests/v1")) == ["MANIFEST_UNKNOWN"]
    (damage,) = scrubbed(server).damage
    assert (damage.kind, damage.digest, damage.repositories) == ("manifest", digest, (repository.name,))
    repository.push_manifest(manifest, "v1")
    assert repository.call("GET", "manifests/v1").content == manifest
    assert scrubbed(server).damage == ()


@pytest.mark.parametrize("left", [None, 10], ids=["lost", "cut"])
@pytest.mark.parametrize("size", [1000, 300_000], ids=["small", "large"])
def test_whoever_pulls_what_is_missing_has_the_next_push_repair_it(
    server: RunningServer, repository: Pushing, size: int, left: int | None
) -> None:
    if left is not None and "://" in server.context.storage:
        pytest.skip("objects of a store are there whole or not at all")
    content = uuid4().bytes * (size // 16 + 1)
    digest = repository.push_blob(content)
    (key,) = keys_of(server, digest)
    overwrite(server, key, None if left is None else content[:left])
    # Some storages tell that bytes are missing only when the answer has begun.
    with suppress(httpx.RemoteProtocolError):
        refused = repository.call("GET", f"blobs/{digest}")
        assert (refused.status_code, codes(refused)) == (404, ["BLOB_UNKNOWN"])
        assert key not in refused.text
    assert repository.call("HEAD", f"blobs/{digest}").status_code == 404
    repository.push_blob(content)
    assert repository.call("GET", f"blobs/{digest}").content == content
    assert scrubbed(server).damage == ()


def test_a_later_part_is_missing(server: RunningServer, repository: Pushing) -> None:
    chunks = [uuid4().bytes * 20_000, uuid4().bytes * 20_000]
    location, start = repository.begin(), 0
    for chunk in chunks:
        repository.session("PATCH", location, content=chunk, headers=ranged(start, chunk))
        start += len(chunk)
    digest = Digest.of(b"".join(chunks))
    assert repository.session("PUT", location, params={"digest": str(digest)}).status_code == 201
    overwrite(server, keys_of(server, digest)[1], None)
    # What is there can be read, and says nothing.
    first = repository.call("GET", f"blobs/{digest}", headers={"range": "bytes=0-99"})
    assert (first.status_code, first.content) == (206, chunks[0][:100])
    assert repository.call("HEAD", f"blobs/{digest}").status_code == 200
    with pytest.raises(httpx.RemoteProtocolError):
        repository.call("GET", f"blobs/{digest}")
    assert repository.call("HEAD", f"blobs/{digest}").status_code == 404
    repository.push_blob(b"".join(chunks))


def test_a_storage_that_is_away_says_nothing_about_blobs(server: RunningServer, repository: Pushing) -> None:
    content = uuid4().bytes
    digest = repository.push_blob(content)
    (key,) = keys_of(server, digest)
    for gone in (PRESENT, key):
        overwrite(server, gone, None)
    away = repository.client.get(f"/v2/{repository.name}/blobs/{digest}")
    overwrite(server, key, content)
    overwrite(server, PRESENT, b"")
    assert (away.status_code, codes(away)) == (503, ["UNAVAILABLE"])
    assert repository.call("GET", f"blobs/{digest}").content == content
