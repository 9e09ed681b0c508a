"""An object store that ends while images are pushed and pulled: nothing is lost, and all goes on when it is back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from tests.integration.server.object_stores import ObjectStore, bucket, object_store
from tests.integration.server.registry.pushing import Pushing, codes, image_of, pushing, ranged
from tests.integration.server.registry_world import make_world

from metalmark.model import Digest
from metalmark.testing.running_server import running_server

MIB = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """A repository, and the store that its bytes are in."""

    repository: Pushing
    store: ObjectStore

    def ask(self, method: str, path: str, **request: object) -> httpx.Response:
        """Send a request that may be answered with 503."""
        location = path if path.startswith("/") else f"/v2/{self.repository.name}/{path}"
        return self.repository.client.request(method, location, **request)  # type: ignore[arg-type]


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    with object_store("versitygw", tmp_path / "store") as store, bucket(store) as made:
        with running_server(tmp_path / "server", storage=made.storage) as server, server.client(None) as client:
            yield Shelf(repository=pushing(client, make_world(server)), store=store)


def test_pushes_and_pulls_are_told_to_come_back_and_do(shelf: Shelf) -> None:
    repository, layer, config = shelf.repository, uuid4().bytes * (MIB // 2), uuid4().bytes
    there = repository.push_blob(uuid4().bytes * 1000)
    location = repository.begin()
    first, rest = layer[: 5 * MIB], layer[5 * MIB :]
    assert repository.session("PATCH", location, content=first, headers=ranged(0, first)).status_code == 202
    shelf.store.kill()
    for refused in (
        shelf.ask("PATCH", location, content=rest, headers=ranged(len(first), rest)),
        shelf.ask("POST", "blobs/uploads/", params={"digest": str(Digest.of(config))}, content=config),
        shelf.ask("GET", f"blobs/{there}"),
    ):
        assert (refused.status_code, codes(refused)) == (503, ["UNAVAILABLE"]), refused.text
        assert int(refused.headers["retry-after"]) > 0
    # What the database knows is known, and nothing of what failed counts.
    assert repository.session("GET", location).headers["range"] == f"0-{len(first) - 1}"
    for digest, status in ((there, 200), (Digest.of(config), 404), (Digest.of(layer), 404)):
        assert repository.call("HEAD", f"blobs/{digest}").status_code == status
    shelf.store.start()
    sent = repository.session("PATCH", location, content=rest, headers=ranged(len(first), rest))
    assert (sent.status_code, sent.headers["range"]) == (202, f"0-{len(layer) - 1}")
    digest = Digest.of(layer)
    assert repository.session("PUT", location, params={"digest": str(digest)}).status_code == 201
    repository.push_blob(config)
    repository.push_manifest(image_of(config, [layer]), "v1")
    assert repository.call("GET", f"blobs/{digest}").content == layer
    assert Digest.of(repository.call("GET", f"blobs/{there}").content) == there
