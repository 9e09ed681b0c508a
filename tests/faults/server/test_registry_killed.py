"""Pushes, pulls, deletions and collections at once, and kill -9 of the server in the middle: nothing that was taken is
lost, and every tag can be read whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.server.object_stores import bucket, object_store
from tests.integration.server.registry.pushing import CONFIG, INDEX, LAYER, MANIFEST, descriptor, document, ranged

from metalmark.model import Digest
from metalmark.testing.server_process import UNLIMITED, ServerProcess, Settings, running_server_process

REGISTRY: Settings = {"lease_s": 20, "upload_timeout_s": 20, "reading_s": 5, "collect_every_s": 1}
"""Everything that is not needed goes as soon as may be, so that what is needed is in danger as often as may be."""
SOAK = bool(os.environ.get("METALMARK_SOAK"))
LENGTHS = (1800, 10_800) if SOAK else (60,)
"""Seconds that it goes on; METALMARK_REGISTRY_SOAK_S names others."""
if "METALMARK_REGISTRY_SOAK_S" in os.environ:
    LENGTHS = (int(os.environ["METALMARK_REGISTRY_SOAK_S"]),)
BETWEEN_S = 10.0
"""From one kill to the next."""
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
        self._others = [f"{project}/client{other}" for other in range(CLIENTS) if other != number]
        # Few layers, and the same for all clients: they go and come back all the time, in several repositories.
        self._layers = [random.Random(layer).randbytes(20_000 + 50_000 * layer) for layer in range(LAYERS)]
        self.said: dict[str, set[bytes | None]] = {}
        """What each tag may be: one manifest, or both while the answer to a change was lost; None for none."""
        self.pushed = self.pulled = self.deleted = self.refused = self.mounted = self.indexes = 0

    def act(self) -> None:
        """Do something, which the server may not survive."""
        tag = f"t{self._random.randrange(TAGS)}"
        choice = self._random.random()
        if choice < 0.5 or not self.said:
            self._push(tag)
        elif choice < 0.6:
            self._push_index(f"i{self._random.randrange(TAGS)}")
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
        self._put(tag, manifest, MANIFEST)

    def _push_index(self, tag: str) -> None:
        certain = [may for may in map(tuple, self.said.values()) if len(may) == 1 and may[0] and b'"layers"' in may[0]]
        images = {may[0] for may in certain if may[0] is not None}
        described = [descriptor(image, MANIFEST) for image in sorted(images)[:2]]
        more = {"annotations": {"number": str(self._random.random())}}
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": described, **more}
        self._put(tag, document(index), INDEX)
        self.indexes += 1

    def _put(self, tag: str, manifest: bytes, media_type: str) -> None:
        before = self.said.get(tag, {None})
        self.said[tag] = before | {manifest}
        headers = {"content-type": media_type}
        answer = self._call("PUT", f"/v2/{self._name}/manifests/{tag}", content=manifest, headers=headers)
        if answer.status_code == 201:
            self.said[tag] = {manifest}
            self.pushed += 1
        else:
            assert media_type == MANIFEST, f"what an index names was there: {answer.text}"
            # This push was slower than its lease: then it has to begin anew, and nothing of it is there.
            assert answer.json()["errors"][0]["code"] == "MANIFEST_BLOB_UNKNOWN", answer.text
            self.said[tag] = before
            self.refused += 1

    def _push_blob(self, content: bytes) -> None:
        digest = Digest.of(content)
        if self._call("HEAD", f"/v2/{self._name}/blobs/{digest}").status_code == 200:
            return
        while True:
            mount = {"mount": str(digest), "from": self._random.choice(self._others)}
            query = mount if self._random.random() < 0.3 else {}
            begun = self._call("POST", f"/v2/{self._name}/blobs/uploads/", params=query)
            if begun.status_code == 201:
                self.mounted += 1
                return
            location = begun.headers["location"]
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
        self._read_named(tag, answer.json())
        self.pulled += 1

    def _read_named(self, tag: str, named: dict[str, Any]) -> None:
        for entry in named.get("manifests", []):
            image = self._call("GET", f"/v2/{self._name}/manifests/{entry['digest']}")
            assert image.status_code == 200, (tag, image.text)
            self._read_named(tag, image.json())
        for entry in (named["config"], *named["layers"]) if "config" in named else ():
            blob = self._call("GET", f"/v2/{self._name}/blobs/{entry['digest']}")
            assert blob.status_code == 200, (tag, blob.text)
            assert str(Digest.of(blob.content)) == entry["digest"]

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
        if answer.status_code == 405:
            # An index names it.
            self.said = before
            return
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


@pytest.fixture(params=["sqlite", "postgresql", *(["sqlite, objects"] if SOAK else [])])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServerProcess]:
    settings: dict[str, Any] = {"registry": REGISTRY, "limits": UNLIMITED}
    with ExitStack() as stack:
        if request.param == "postgresql":
            settings["database"] = request.getfixturevalue("durable_database")
        elif "objects" in request.param:
            store = stack.enter_context(object_store("versitygw", tmp_path / "store"))
            settings["storage"] = stack.enter_context(bucket(store)).storage
        yield stack.enter_context(running_server_process(tmp_path / "server", settings))


@pytest.mark.timeout(max(LENGTHS) + 600)
@pytest.mark.parametrize("seconds", LENGTHS)
def test_no_digest_is_lost(server: ServerProcess, seconds: int) -> None:
    key, project = make_project(server)
    clients = [Client(server.url, key, project, number) for number in range(CLIENTS)]
    faults: list[BaseException] = []
    until = time.monotonic() + seconds
    threads = [threading.Thread(target=work, args=(client, until, faults)) for client in clients]
    for thread in threads:
        thread.start()
    try:
        while time.monotonic() < until - BETWEEN_S / 2 and not faults:
            time.sleep(BETWEEN_S)
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
    names = ("pushed", "indexes", "pulled", "deleted", "refused", "mounted")
    print({name: sum(getattr(client, name) for client in clients) for name in names})  # noqa: T201  figures of a soak
    assert sum(client.pushed for client in clients) > 0
    assert sum(client.pulled for client in clients) > 0
    failed = [line for line in server.log().splitlines() if "registry not collected" in line]
    # Amid so many writes one may not come to its turn; the next does, a second later.
    assert [line for line in failed if not json.loads(line).get("transient")] == []
    assert len(failed) * 10 < seconds, failed
    assert scrubbed(server)["damage"] == []


def scrubbed(server: ServerProcess) -> dict[str, Any]:
    """Everything that is stored, read and hashed by the operator's own command."""
    command = [str(Path(sys.executable).with_name("metalmark")), "registry", "scrub", "--json"]
    config = ["--config", str(server.folder / f"{server.name}.toml")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("METALMARK_")}
    environment["METALMARK_HOME"] = str(server.folder / "home")
    done = subprocess.run(
        [*command, *config], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    found: dict[str, Any] = json.loads(done.stdout or "{}")
    assert done.returncode in (0, 1), done.stderr
    assert found, done.stderr
    return found
