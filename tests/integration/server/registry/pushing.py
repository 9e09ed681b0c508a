"""A client of the registry that says exactly what a test wants it to say."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
from tests.integration.server.registry_world import RegistryWorld, bearer

from metalmark.model import Digest

CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"


def descriptor(content: bytes, media_type: str, algorithm: str = "sha256", **more: Any) -> dict[str, Any]:
    digest = str(Digest.of(content, algorithm))
    return {"mediaType": media_type, "digest": digest, "size": len(content), **more}


def document(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode()


def image_of(config: bytes, layers: Sequence[bytes], media_type: str = MANIFEST, **more: Any) -> bytes:
    return document(
        {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": descriptor(config, CONFIG),
            "layers": [descriptor(layer, LAYER) for layer in layers],
            **more,
        }
    )


def index_of(manifests: Sequence[bytes], media_type: str = INDEX, child: str = MANIFEST, **more: Any) -> bytes:
    entries = [descriptor(manifest, child) for manifest in manifests]
    return document({"schemaVersion": 2, "mediaType": media_type, "manifests": entries, **more})


def codes(answer: httpx.Response) -> list[str]:
    """The codes of an answer that is an error, whose body keeps to both shapes."""
    body = answer.json()
    assert body["request_id"] == answer.headers["x-request-id"], body
    assert body["message"], body
    assert body["errors"], body
    for error in body["errors"]:
        assert set(error) <= {"code", "message", "detail"}, body
    return [error["code"] for error in body["errors"]]


@dataclass(frozen=True, kw_only=True)
class Pushing:
    """One repository as one caller sees it."""

    client: httpx.Client
    name: str

    def at(self, name: str) -> Pushing:
        return Pushing(client=self.client, name=name)

    def call(self, method: str, path: str, **request: Any) -> httpx.Response:
        answer = self.client.request(method, f"/v2/{self.name}/{path}", **request)
        assert answer.status_code < 500, answer.text
        return answer

    def begin(self, **query: str) -> str:
        answer = self.call("POST", "blobs/uploads/", params=query)
        assert answer.status_code == 202, answer.text
        location = answer.headers["location"]
        assert answer.headers["range"] == "0-0"
        assert location == f"/v2/{self.name}/blobs/uploads/{answer.headers['docker-upload-uuid']}"
        return str(location)

    def session(self, method: str, location: str, **request: Any) -> httpx.Response:
        answer = self.client.request(method, location, **request)
        assert answer.status_code < 500, answer.text
        return answer

    def push_blob(self, content: bytes, algorithm: str = "sha256") -> Digest:
        digest = Digest.of(content, algorithm)
        answer = self.session("PUT", self.begin(), params={"digest": str(digest)}, content=content)
        assert answer.status_code == 201, answer.text
        assert answer.headers["location"] == f"/v2/{self.name}/blobs/{digest}"
        assert answer.headers["docker-content-digest"] == str(digest)
        return digest

    def put_manifest(self, reference: str, content: bytes, media_type: str | None = MANIFEST) -> httpx.Response:
        headers = {} if media_type is None else {"content-type": media_type}
        return self.call("PUT", f"manifests/{reference}", content=content, headers=headers)

    def push_manifest(self, content: bytes, *tags: str, media_type: str | None = MANIFEST) -> Digest:
        digest = Digest.of(content)
        for reference in tags or (str(digest),):
            answer = self.put_manifest(reference, content, media_type)
            assert answer.status_code == 201, answer.text
            assert answer.headers["docker-content-digest"] == str(digest)
            assert answer.headers["location"] == f"/v2/{self.name}/manifests/{digest}"
        return digest

    def push_image(self, *tags: str, **more: Any) -> bytes:
        """Push an image of its own, and return its manifest."""
        config, layer = uuid4().bytes, uuid4().bytes * 10
        self.push_blob(config)
        self.push_blob(layer)
        manifest = image_of(config, [layer], **more)
        self.push_manifest(manifest, *tags)
        return manifest

    def tags(self, **query: Any) -> list[str]:
        answer = self.call("GET", "tags/list", params=query)
        assert answer.status_code == 200, answer.text
        assert answer.json()["name"] == self.name
        return list(answer.json()["tags"])

    def pages(self, path: str, member: str, **query: Any) -> Iterator[list[Any]]:
        answer = self.call("GET", path, params=query)
        while True:
            assert answer.status_code == 200, answer.text
            yield answer.json()[member]
            if "next" not in answer.links:
                return
            answer = self.session("GET", answer.links["next"]["url"])


def pushing(client: httpx.Client, world: RegistryWorld, *, key: str = "developer", name: str = "") -> Pushing:
    """A new repository of a private project, as a holder of a key sees it."""
    client.headers.update(bearer(world.keys[key]))
    return Pushing(client=client, name=name or f"{world.private}/{uuid4().hex[:12]}")


def ranged(start: int, content: bytes) -> Mapping[str, str]:
    """The headers of a chunk."""
    return {"content-range": f"{start}-{start + len(content) - 1}", "content-type": "application/octet-stream"}
