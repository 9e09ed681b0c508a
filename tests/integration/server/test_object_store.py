"""A server whose storage is an object store with the S3 interface, in a process of its own."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import signal
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.server.channel.conftest import Rack, rack
from tests.integration.server.channel.test_output import Uploader
from tests.integration.server.channel.test_own import greeted
from tests.integration.server.object_stores import STORES, Bucket, ObjectStore, bucket, object_store

from metalmark.model import StoreAway, new_id
from metalmark.server import ServerContext
from metalmark.server.orphan_sweep import OrphanSweep
from metalmark.server.output_sweep import OutputSweep
from metalmark.testing.running_server import running_server

LARGE = json.dumps({"results": [{"exit_code": 0, "stdout": "x" * 12_000_000}]}).encode()


@pytest.fixture(scope="module", params=STORES)
def shared_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with object_store(request.param, tmp_path_factory.mktemp("objects") / "store") as made:
        yield made


@pytest.fixture
def objects(shared_store: ObjectStore) -> Iterator[Bucket]:
    with bucket(shared_store) as made:
        yield made


@pytest.fixture(params=STORES)
def objects_that_break(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bucket]:
    """A bucket of an object store that the test may stop."""
    with object_store(request.param, tmp_path / "store") as store, bucket(store) as made:
        yield made


@pytest.fixture
def server(objects: Bucket, tmp_path: Path) -> Iterator[Rack]:
    # A message is smaller than the uploads, so that those are read by the process that checks large ones.
    bounds: dict[str, Any] = {"server": {"message_max_bytes": 4 * 1024 * 1024}}
    with rack(tmp_path / "server", f"sqlite:///{tmp_path}/server.db", storage=objects.storage, **bounds) as made:
        yield made


def begun(server: Rack) -> Uploader:
    spec = server.own_spec()
    runner = server.runner(spec=spec)
    job = server.submit(spec)
    return Uploader(server, runner, job, 1)


def shown(server: Rack, job: str) -> httpx.Response:
    with server.server.client() as client:
        return client.get(f"/v0/projects/{server.floor.project}/jobs/{job}/output")


def test_results_are_stored_and_streamed(objects: Bucket, server: Rack) -> None:
    by_message = begun(server)
    by_message.runner.take()
    results = [{"exit_code": 0, "stdout": "from a message"}]
    assert by_message.runner.complete(by_message.job, results) is not None
    assert server.status(by_message.job) == "processed"
    assert "from a message" in shown(server, by_message.job).text
    by_message.runner.disconnect()

    uploader = begun(server)
    with greeted(server, uploader.runner) as own:
        own.want(1)
        held = own.take()
        own.tell(event="running", **held)
        # Cut off in the middle, and gone on with: more than one part of the object store's own.
        middle = 9_000_000
        assert uploader.put(LARGE[:middle], document=LARGE).json() == {"offset": middle, "complete": False}
        assert uploader.status(LARGE) == {"offset": middle, "complete": False}
        assert uploader.put(LARGE[middle:], document=LARGE, offset=middle).json()["complete"]
        uploaded = {"checksum": hashlib.sha256(LARGE).hexdigest(), "size_bytes": len(LARGE)}
        assert own.tell(event="completed", uploaded=uploaded, **held)["event"] == "ack"
    deadline = time.monotonic() + 60
    while server.status(uploader.job) != "processed":
        assert time.monotonic() < deadline, server.status(uploader.job)
        time.sleep(0.05)
    held = objects.keys()
    stored = {key for key in held if uploader.job in key}
    assert len(stored) == 1, "parts are gone once the whole is there"
    assert objects.content(stored.pop()) == LARGE


def test_bytes_of_another_checksum_are_not_kept(objects: Bucket, server: Rack) -> None:
    uploader = begun(server)
    uploader.runner.take()
    refused = uploader.put(b"y" * len(LARGE), document=LARGE)
    assert refused.status_code == 400
    held = objects.keys()
    assert not {key for key in held if uploader.job in key}
    assert uploader.put(LARGE, document=LARGE).json()["complete"]
    uploader.runner.disconnect()


def test_orphans_and_parts_of_jobs_that_ended_are_swept(
    objects: Bucket, server: Rack, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = begun(server)
    done.runner.take()
    assert done.put(LARGE[:5_000_000], document=LARGE).json()["offset"] == 5_000_000
    assert done.runner.complete(done.job, [{"exit_code": 0, "stdout": "kept"}]) is not None
    done.runner.disconnect()
    orphan = f"results/{new_id()}.json"

    async def sweep(context: ServerContext) -> int:
        await context.blobs.put(orphan, b"[]")
        await OutputSweep(context).sweep()
        return await OrphanSweep(context).sweep()

    assert server.call(sweep) == 0, "it is new"
    kept = objects.keys()
    assert not [key for key in kept if "/uploads/" in key]
    assert f"large/{orphan}" in kept
    monkeypatch.setattr("metalmark.server.orphan_sweep.KEPT", timedelta(seconds=-60))
    assert server.call(sweep) == 1
    assert kept - objects.keys() == {f"large/{orphan}"}
    assert "kept" in shown(server, done.job).text


def test_a_backup_goes_there_too(objects: Bucket, server: Rack, tmp_path: Path) -> None:
    asked = {"compress": True, "data_store": "aws_s3", "remove": True}
    with server.server.client() as client:
        assert client.post("/v0/server/backup", json=asked).status_code == 201
    held = objects.keys()
    (copy,) = [key for key in held if key.startswith("large/backups/")]
    assert gzip.decompress(objects.content(copy)).startswith(b"SQLite format 3\0")
    assert not list((tmp_path / "server/backups").iterdir())


def test_a_server_is_not_ready_while_its_storage_is_away(
    objects_that_break: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = objects_that_break
    monkeypatch.setattr("metalmark.server.readiness.KEPT_S", 0.0)
    monkeypatch.setattr("metalmark.server.readiness.WITHIN_S", 1.0)
    with running_server(tmp_path / "server", storage=objects.storage) as server, server.client() as client:

        def ready() -> int:
            return client.get("/readyz").status_code

        assert ready() == 200
        os.kill(objects.store.process.pid, signal.SIGSTOP)
        began = time.monotonic()
        silent = client.get("/readyz")
        assert silent.status_code == 503 and "storage" in silent.json()["message"]
        assert time.monotonic() - began < 20
        assert client.get("/healthz").status_code == 200
        os.kill(objects.store.process.pid, signal.SIGCONT)
        assert ready() == 200
        objects.store.kill()
        assert ready() == 503
        assert client.get("/v0/users").status_code == 200, "what needs no storage goes on"


def test_a_bucket_that_is_not_there_ends_the_start(objects: Bucket, tmp_path: Path) -> None:
    with pytest.raises(StoreAway, match="cannot be written to"):
        with running_server(tmp_path / "server", storage="s3://nowhere/large"):
            pass
