"""Pushes, pulls, deletions and collections at once, and kill -9 of the server in the middle: nothing that was taken is
lost, and every tag can be read whole.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.server.registry.pushing import CONFIG, LAYER, MANIFEST, descriptor, document, ranged

from metalmark.model import Digest
from metalmark.testing.server_process import UNLIMITED, ServerProcess, Settings, running_server_process

REGISTRY: Settings = {"lease_s": 20, "upload_timeout_s": 20, "reading_s": 5, "collect_every_s": 1}
"""Everything that is not needed goes as soon as may be, so that what is needed is in danger as often as may be."""
CLIENTS = 3
TAGS = 4
LAYERS = 12
FLEETING = (httpx.TransportError,)


class Client:
    """One client with a repository of its own; it keeps book of what the server said is there."""

    def __init__(self, url: str, key: str, project: str, number: int) -> None:
        self._http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30, trust_env=False)
        self._random = random.Random(number)
        self._name = f"{project}/client{number}"
        # Few layers, and the same for all clients: they go and come back all the time, in several repositories.
        self._layers = [random.Random(layer).randbytes(20_000 + 50_000 * layer) for layer in range(LAYERS)]
        self.said: dict[str, set[bytes | None]] = {}
        """What each tag may be: one manifest, or both while the answer to a change was lost; None for none."""
        self.pushed = self.pulled = self.deleted = self.refused = 0

    def act(self) -> None:
        """Do something, which the server may not survive."""
        tag = f"t{self._random.randrange(TAGS)}"
        choice = self._random.random()
        if choice < 0.6 or not self.said:
            self._push(tag)
        elif choice < 0.85:
            self.check(self._random.choice(sorted(self.said)))
        else:
            self._delete(self._random.choice(sorted(self.said)))

    def _call(self, method: str, path: str, **request: Any) -> httpx.Response:
        while True:
            answer = self._http.request(method, path, **request)
            if answer.status_code != 503:
                assert answer.status_code < 500, answer.text
                return answer
            time.sleep(0.1)

    def _push(self, tag: str) -> None:
        config = self._random.randbytes(50)
        layers = self._random.sample(self._layers, 3)
        for content in (config, *layers):
            self._push_blob(content)
        described = [descriptor(layer, LAYER) for layer in layers]
        manifest = document(
            {"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(config, CONFIG), "layers": described}
        )
        before = self.said.get(tag, {None})
        self.said[tag] = before | {manifest}
        headers = {"content-type": MANIFEST}
        answer = self._call("PUT", f"/v2/{self._name}/manifests/{tag}", content=manifest, headers=headers)
        if answer.status_code == 201:
            self.said[tag] = {manifest}
            self.pushed += 1
        else:
            # This push was slower than its lease: then it has to begin anew, and nothing of it is there.
            assert answer.json()["errors"][0]["code"] == "MANIFEST_BLOB_UNKNOWN", answer.text
            self.said[tag] = before
            self.refused += 1

    def _push_blob(self, content: bytes) -> None:
        digest = Digest.of(content)
        if self._call("HEAD", f"/v2/{self._name}/blobs/{digest}").status_code == 200:
            return
        while True:
            location = self._call("POST", f"/v2/{self._name}/blobs/uploads/").headers["location"]
            half = len(content) // 2 if self._random.random() < 0.5 else 0
            if half:
                self._call("PATCH", location, content=content[:half], headers=ranged(0, content[:half]))
            done = self._call("PUT", location, params={"digest": str(digest)}, content=content[half:])
            if done.status_code == 201:
                return
            # The session lay still for too long.
            assert done.status_code == 404, done.text

    def check(self, tag: str) -> None:
        """Read a tag whole."""
        answer = self._call("GET", f"/v2/{self._name}/manifests/{tag}")
        found = answer.content if answer.status_code == 200 else None
        assert found in self.said[tag], (tag, answer.status_code, answer.text)
        self.said[tag] = {found}
        if found is None:
            return
        named = answer.json()
        for entry in (named["config"], *named["layers"]):
            blob = self._call("GET", f"/v2/{self._name}/blobs/{entry['digest']}")
            assert blob.status_code == 200, (tag, blob.text)
            assert str(Digest.of(blob.content)) == entry["digest"]
        self.pulled += 1

    def _delete(self, tag: str) -> None:
        head = self._call("HEAD", f"/v2/{self._name}/manifests/{tag}")
        if head.status_code != 200:
            assert None in self.said[tag]
            return
        digest = head.headers["docker-content-digest"]
        before = dict(self.said)
        for name, may in before.items():
            # All tags of it go with it.
            if any(each is not None and str(Digest.of(each)) == digest for each in may):
                self.said[name] = may | {None}
        answer = self._call("DELETE", f"/v2/{self._name}/manifests/{digest}")
        assert answer.status_code in (202, 404), answer.text
        self.deleted += 1

    def close(self) -> None:
        self._http.close()


def make_project(server: ServerProcess) -> tuple[str, str]:
    key = server.admin_key()
    with httpx.Client(
        base_url=server.url, headers={"Authorization": f"Bearer {key}"}, timeout=30, trust_env=False
    ) as client:
        organization = client.post("/v0/organizations", json={"name": "Soak"})
        assert organization.status_code == 201, organization.text
        project = client.post(f"/v0/organizations/{organization.json()['slug']}/projects", json={"name": "soak"})
        assert project.status_code == 201, project.text
    return key, project.json()["slug"]


def work(client: Client, until: float, faults: list[BaseException]) -> None:
    try:
        while time.monotonic() < until and not faults:
            with contextlib.suppress(*FLEETING):
                client.act()
                continue
            # The server is down: it comes back.
            time.sleep(0.2)
    except BaseException as error:  # noqa: BLE001 - told by the test, which the thread is no part of
        faults.append(error)


@pytest.fixture(params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServerProcess]:
    settings: dict[str, Any] = {"registry": REGISTRY, "limits": UNLIMITED}
    if request.param == "postgresql":
        settings["database"] = request.getfixturevalue("durable_database")
    with running_server_process(tmp_path, settings) as running:
        yield running


def test_no_digest_is_lost(server: ServerProcess, soak: bool) -> None:
    seconds, between = (1800.0, 20.0) if soak else (30.0, 10.0)
    key, project = make_project(server)
    clients = [Client(server.url, key, project, number) for number in range(CLIENTS)]
    faults: list[BaseException] = []
    until = time.monotonic() + seconds
    threads = [threading.Thread(target=work, args=(client, until, faults)) for client in clients]
    for thread in threads:
        thread.start()
    try:
        while time.monotonic() < until - between / 2 and not faults:
            time.sleep(between)
            server.kill()
            server.start()
    finally:
        for thread in threads:
            thread.join(120)
    assert not faults, faults
    for client in clients:
        for tag in client.said:
            client.check(tag)
        client.close()
    names = ("pushed", "pulled", "deleted", "refused")
    print({name: sum(getattr(client, name) for client in clients) for name in names})  # noqa: T201  figures of a soak
    assert sum(client.pushed for client in clients) > 0
    assert sum(client.pulled for client in clients) > 0
    assert "registry not collected" not in server.log()
