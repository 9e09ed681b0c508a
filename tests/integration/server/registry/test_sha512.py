"""Images whose every digest is SHA-512: pushed, copied, pulled, run, scrubbed and kept like others."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import anyio
import pytest
from tests.integration.server.registry.pushing import INDEX, Pushing, codes, descriptor
from tests.integration.server.registry.stored import scrubbed
from tests.integration.server.registry_world import RegistryWorld

from metalmark.model import Digest, Platform
from metalmark.oci import ImageCache, PushedImage, PushRequest, Reference, RegistryAccess, parse_source, pull, push
from metalmark.testing.images import FakeImage, FakeLayer, index_of, tar_of, write_layout
from metalmark.testing.running_server import RunningServer

T = TypeVar("T")
AMD64 = Platform("linux", "amd64")


class LongImage(FakeImage):
    """An image with SHA-512 wherever a registry sees a digest."""

    def add(self, data: bytes) -> Digest:
        digest = Digest.of(data, "sha512")
        self.blobs[digest] = data
        return digest


@dataclass(frozen=True)
class Place:
    """A repository as our own client of registries reaches it."""

    registry: str
    name: str
    access: RegistryAccess
    folder: Path

    def push(self, source: str, target: str) -> PushedImage:
        request = PushRequest(
            source=parse_source(source),
            target=Reference.parse(f"{self.registry}/{target}"),
            access=self.access,
            source_access=self.access,
            scratch=self.folder,
        )
        return run(lambda: push(request))

    def pull(self, name: str) -> Digest:
        """Pull into a cache of its own, so that every byte comes from the registry."""

        async def take() -> Digest:
            with ImageCache(self.folder / f"cache-{os.urandom(4).hex()}") as cache:
                source = parse_source(f"{self.registry}/{name}")
                return (await pull(source, cache=cache, platform=AMD64, access=self.access)).digest

        return run(take)


def run(work: Callable[[], Awaitable[T]]) -> T:
    return anyio.run(work)


@pytest.fixture
def place(server: RunningServer, world: RegistryWorld, repository: Pushing, tmp_path: Path) -> Place:
    access = RegistryAccess(token=world.keys["developer"], certs_folders=())
    return Place(server.url.partition("://")[2], repository.name, access, tmp_path)


def image(architecture: str = "amd64") -> LongImage:
    layers = [FakeLayer.gzipped(tar_of({f"f{number}": os.urandom(20_000)})) for number in range(2)]
    return LongImage(layers=layers, architecture=architecture)


def test_an_image_goes_through_our_own_client(repository: Pushing, place: Place, tmp_path: Path) -> None:
    made = image()
    layout = write_layout(tmp_path / "layout", made)
    pushed = place.push(str(layout), f"{place.name}@{made.manifest}")
    assert (pushed.digest, pushed.uploaded) == (made.manifest, 3)
    assert repository.call("GET", f"manifests/{made.manifest}").content == made.blobs[made.manifest]
    assert place.pull(f"{place.name}@{made.manifest}") == made.manifest
    # Under a tag a registry has it by the digest of its choice; what it names stays as it is.
    place.push(str(layout), f"{place.name}:v1")
    tagged = repository.call("GET", "manifests/v1")
    assert tagged.content == made.blobs[made.manifest]
    assert tagged.headers["docker-content-digest"] == str(Digest.of(tagged.content))
    assert place.pull(f"{place.name}:v1") == Digest.of(tagged.content)
    # And on into another repository, where nothing of it is sent again.
    again = place.push(f"{place.registry}/{place.name}:v1", f"{place.name}/copy:v1")
    assert again.blobs == 3
    assert place.pull(f"{place.name}/copy:v1") == Digest.of(tagged.content)


def test_an_index_of_images(repository: Pushing, place: Place, tmp_path: Path) -> None:
    images = [image(), image("arm64")]
    index = index_of([each.descriptor(platform=True) for each in images])
    layout = write_layout(tmp_path / "layout", *images, index=index)
    assert place.push(str(layout), f"{place.name}:all").manifests == 3
    assert place.pull(f"{place.name}:all") == images[0].manifest
    for each in images:
        refused = repository.call("DELETE", f"manifests/{each.manifest}")
        assert (refused.status_code, codes(refused)) == (405, ["DENIED"])
    long = Digest.of(index, "sha512")
    assert repository.put_manifest(str(long), index, INDEX).status_code == 201
    assert repository.call("GET", f"manifests/{long}").content == index


def test_chunks_are_hashed_whole(repository: Pushing) -> None:
    content = os.urandom(300_000)
    digest, location = Digest.of(content, "sha512"), repository.begin()
    for start in range(0, len(content), 100_000):
        repository.session("PATCH", location, content=content[start : start + 100_000])
    assert repository.session("PUT", location, params={"digest": str(digest)}).status_code == 201
    # It is another blob than the one of the same bytes under SHA-256.
    assert repository.call("HEAD", f"blobs/{Digest.of(content)}").status_code == 404
    assert repository.call("GET", f"blobs/{digest}").content == content


def test_a_scrub_knows_them(server: RunningServer, repository: Pushing, place: Place, tmp_path: Path) -> None:
    made = image()
    place.push(str(write_layout(tmp_path / "layout", made)), f"{place.name}@{made.manifest}")
    assert scrubbed(server).damage == ()


def test_an_artifact_of_an_image(repository: Pushing, place: Place, tmp_path: Path) -> None:
    made = image()
    place.push(str(write_layout(tmp_path / "layout", made)), f"{place.name}@{made.manifest}")
    document = json.loads(made.blobs[made.manifest])
    document["subject"] = descriptor(made.blobs[made.manifest], "application/vnd.oci.image.manifest.v1+json", "sha512")
    signature = json.dumps(document).encode()
    put = repository.put_manifest(str(Digest.of(signature, "sha512")), signature)
    assert (put.status_code, put.headers["oci-subject"]) == (201, str(made.manifest))
    (entry,) = repository.call("GET", f"referrers/{made.manifest}").json()["manifests"]
    assert entry["digest"] == str(Digest.of(signature, "sha512"))
    # The tag of the fallback schema, for clients that know no referrers, is cut to what a tag may be.
    tag = f"sha512-{made.manifest.hex[:64]}"
    repository.push_manifest(signature, tag)
    assert repository.tags() == [tag]
