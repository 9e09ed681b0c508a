"""What a job's runner may pull: images of its project, at every process of the server, as long as it has the job."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import anyio
import httpx
import pytest
from tests.integration.server.registry.pushing import INDEX, Pushing, codes, image_of, index_of, pushing
from tests.integration.server.registry_world import RegistryWorld, bearer, make_world

from metalmark.model import Digest, Platform
from metalmark.oci import ImageCache, Patience, RegistryAccess, parse_source, pull
from metalmark.testing.images import FakeImage, FakeLayer, tar_of
from metalmark.testing.postgresql import Cluster
from metalmark.testing.public_runner import PublicRunner
from metalmark.testing.running_server import RunningServer, running_server

AMD64 = Platform("linux", "amd64")
TIMES = {"start_time": "2026-01-01T00:00:00Z", "end_time": "2026-01-01T00:00:00Z", "results": []}
HARDWARE = {"os": "linux", "architecture": "x86_64", "sandbox": "firecracker", "cpu": 1, "memory": 2**28, "disk": 2**27}


@dataclass(kw_only=True)
class Fleet:
    """Servers over one database, a private project with images, and runners that take jobs by the public messages."""

    servers: list[RunningServer]
    world: RegistryWorld
    repository: Pushing
    """The private project's own."""
    runners: list[PublicRunner] = field(default_factory=list)

    def call(self, method: str, path: str, body: object = None, *, key: str = "") -> Any:
        with self.servers[0].client(key) as client:
            answer = client.request(method, path, json=body)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def spec(self) -> str:
        spec: str = self.call("POST", "/v0/specs", {"name": f"s{uuid4().hex}", **HARDWARE})["uuid"]
        return spec

    def runner(self, spec: str, *, at: int = -1) -> PublicRunner:
        """Register a runner and connect it, to the last server by default."""
        made = self.call("POST", "/v0/runners", {"name": f"r{uuid4().hex}"})
        self.call("POST", f"/v0/runners/{made['uuid']}/specs", {"spec": spec})
        runner = PublicRunner(self.servers[at].url, made["uuid"], made["key"], poll_timeout_s=5)
        self.runners.append(runner)
        return runner

    def submit(self, image: str, spec: str, **fields: object) -> str:
        """Submit a job, as somebody who may, to the first server."""
        body = {"project": self.world.private, **TIMES, "job": {"image": image, "spec": spec, **fields}}
        job: str = self.call("POST", "/v0/run", body, key=self.world.keys["developer"])["job"]
        return job

    def status(self, job: str) -> str:
        found: str = self.call("GET", f"/v0/projects/{self.world.private}/jobs/{job}")["status"]
        return found

    def wait_for(self, job: str, status: str) -> None:
        deadline = time.monotonic() + 60
        while self.status(job) != status:
            assert time.monotonic() < deadline, self.status(job)
            time.sleep(0.05)


def fleet_of(stack: ExitStack, servers: list[RunningServer]) -> Fleet:
    world = make_world(servers[0])
    client = stack.enter_context(servers[0].client(None))
    fleet = Fleet(servers=servers, world=world, repository=pushing(client, world, name=world.private))

    def hang_up() -> None:
        for runner in fleet.runners:
            runner.disconnect()

    stack.callback(hang_up)
    return fleet


@pytest.fixture(scope="module", params=["sqlite", "postgresql, two servers"])
def fleet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Servers of each engine, with leases longer than any test."""
    folder = tmp_path_factory.mktemp("fleet")
    # What processes sign is for all that have the same address; here each has another port.
    settings = {"jobs": {"heartbeat_timeout_s": 300}, "auth": {"issuer": "http://bench.example/"}}
    with ExitStack() as stack:
        if request.param == "sqlite":
            servers = [stack.enter_context(running_server(folder / "server", settings=settings))]
        else:
            cluster: Cluster = request.getfixturevalue("postgresql_with_tables")
            shared: dict[str, Any] = {
                "database": stack.enter_context(cluster.database()),
                "storage": str(folder / "storage"),
                "settings": settings,
            }
            servers = [stack.enter_context(running_server(folder / "one", **shared))]
            servers.append(stack.enter_context(running_server(folder / "two", has_users=True, **shared)))
        yield fleet_of(stack, servers)


@dataclass(frozen=True, kw_only=True)
class Pulling:
    """The registry as a job's runner sees it: what the job's message says, and nothing else."""

    urls: list[str]
    project: str
    digest: str
    token: str

    @classmethod
    def of(cls, fleet: Fleet, message: dict[str, Any]) -> Pulling:
        config = message["config"]
        assert config["registry"].rstrip("/") in {
            server.url.replace("127.0.0.1", "localhost") for server in fleet.servers
        }
        urls = [server.url for server in fleet.servers]
        return cls(urls=urls, project=config["project"], digest=config["digest"], token=message["oci_token"])

    def ask(self, path: str, *, method: str = "GET", at: str = "", project: str = "", **request: Any) -> httpx.Response:
        url = f"{at or self.urls[0]}/v2/{project or self.project}/{path}"
        return httpx.request(method, url, headers=bearer(self.token), timeout=30, trust_env=False, **request)

    def statuses(self) -> set[int]:
        """What each server answers to somebody who asks for the image."""
        return {self.ask(f"manifests/{self.digest}", at=url).status_code for url in self.urls}

    def whole(self, at: str) -> dict[str, bytes]:
        """Pull the image, as that runner does: the manifest by its digest, then all that it names."""
        manifest = self.ask(f"manifests/{self.digest}", at=at)
        assert manifest.status_code == 200, manifest.text
        named = manifest.json()
        found = {self.digest: manifest.content}
        for entry in (named["config"], *named["layers"]):
            blob = self.ask(f"blobs/{entry['digest']}", at=at)
            assert blob.status_code == 200, blob.text
            found[entry["digest"]] = blob.content
        assert all(str(Digest.of(content)) == digest for digest, content in found.items())
        return found


@pytest.mark.parametrize("inner", ["", "inner/app"])
def test_the_public_runner_pulls_with_its_token_until_its_job_is_over(fleet: Fleet, inner: str) -> None:
    name = f"{fleet.world.private}/{inner}".rstrip("/")
    manifest = fleet.repository.at(name).push_image(f"v{len(inner)}")
    spec = fleet.spec()
    job = fleet.submit(f"{name}:v{len(inner)}", spec)
    runner = fleet.runner(spec)
    message = runner.take()
    pulling = Pulling.of(fleet, message)
    # The project is all that it is told, in whichever of its repositories the image is.
    assert (pulling.project, pulling.digest) == (str(fleet.world.private_id), str(Digest.of(manifest)))
    for url in pulling.urls:
        assert len(pulling.whole(url)) == 3
        assert httpx.get(f"{url}/v2/{pulling.project}/manifests/{pulling.digest}", trust_env=False).status_code == 401
    assert runner.complete(job, [{"exit_code": 0, "stdout": ""}]) is not None
    refused = pulling.ask(f"manifests/{pulling.digest}")
    assert (refused.status_code, codes(refused)) == (401, ["UNAUTHORIZED"])
    assert pulling.statuses() == {401}
    layer = json.loads(manifest)["layers"][0]["digest"]
    assert {pulling.ask(f"blobs/{layer}", at=url).status_code for url in pulling.urls} == {401}


def test_our_client_pulls_with_it_as_a_runner_of_ours_does(fleet: Fleet, tmp_path: Path) -> None:
    made = FakeImage(layers=[FakeLayer.gzipped(tar_of({"a": b"b" * 100_000}))])
    for digest, content in made.blobs.items():
        if digest != made.manifest:
            fleet.repository.push_blob(content)
    fleet.repository.push_manifest(made.blobs[made.manifest], "ours")
    spec = fleet.spec()
    job = fleet.submit(f"{fleet.world.private}:ours", spec)
    runner = fleet.runner(spec, at=0)
    pulling = Pulling.of(fleet, runner.take())
    access = RegistryAccess(
        token=pulling.token, patience=Patience(attempts=2, first_wait_s=0.05), certs_folders=(), plain_http=True
    )

    async def take() -> str:
        with ImageCache(tmp_path / uuid4().hex) as cache:
            source = parse_source(f"docker://{urlsplit(pulling.urls[-1]).netloc}/{pulling.project}@{pulling.digest}")
            return str((await pull(source, cache=cache, platform=AMD64, access=access)).digest)

    assert anyio.run(take) == str(made.manifest)
    runner.fail(job, [], "done with")


def test_a_token_is_for_the_images_of_its_project_and_to_read(fleet: Fleet) -> None:
    spec, other = fleet.spec(), fleet.repository.at(fleet.world.public)
    fleet.repository.push_image("reads")
    foreign = other.push_image("v1")
    job = fleet.submit(f"{fleet.world.private}:reads", spec)
    runner = fleet.runner(spec)
    pulling = Pulling.of(fleet, runner.take())
    digest = Digest.of(foreign)
    # Nobody would need a token for the public project, and this one opens nothing of it either.
    assert pulling.ask(f"manifests/{digest}", project=fleet.world.public).status_code == 403
    assert pulling.ask(f"manifests/{digest}").status_code == 404
    assert pulling.ask(f"manifests/{pulling.digest}").status_code == 200
    for method, path in (
        ("POST", "blobs/uploads/"), ("PUT", "manifests/x"), ("DELETE", f"manifests/{pulling.digest}"),
        ("DELETE", f"blobs/{digest}"),
    ):  # fmt: skip
        refused = pulling.ask(path, method=method, content=b"{}")
        assert (refused.status_code, codes(refused)) == (403, ["DENIED"]), (method, path)
    # A mount from where the token reads is a push all the same.
    mount = pulling.ask(f"blobs/uploads/?mount={digest}&from={pulling.project}", method="POST")
    assert mount.status_code == 403
    assert fleet.repository.call("HEAD", f"manifests/{pulling.digest}").status_code == 200
    runner.fail(job, [], "done with")


def test_an_index_of_a_job_is_there_with_its_images(fleet: Fleet) -> None:
    repository = fleet.repository.at(f"{fleet.world.private}/many")
    images = [repository.push_image(), repository.push_image()]
    repository.push_manifest(index_of(images), "all", media_type=INDEX)
    spec = fleet.spec()
    job = fleet.submit(f"{repository.name}:all", spec)
    runner = fleet.runner(spec)
    pulling = Pulling.of(fleet, runner.take())
    index = pulling.ask(f"manifests/{pulling.digest}")
    assert (index.status_code, index.headers["content-type"]) == (200, INDEX)
    assert {entry["digest"] for entry in index.json()["manifests"]} == {str(Digest.of(image)) for image in images}
    for image in images:
        assert pulling.ask(f"manifests/{Digest.of(image)}").content == image
    runner.fail(job, [], "done with")


def test_what_the_project_no_longer_has_is_not_there(fleet: Fleet) -> None:
    repository = fleet.repository.at(f"{fleet.world.private}/shared")
    config, layer = uuid4().bytes, uuid4().bytes
    for content in (config, layer):
        repository.push_blob(content)
        # The same bytes in another project are no reason to show them in this one.
        fleet.repository.at(f"{fleet.world.public}/shared").push_blob(content)
    manifest = image_of(config, [layer])
    repository.push_manifest(manifest, "v1")
    spec = fleet.spec()
    job = fleet.submit(f"{repository.name}:v1", spec)
    runner = fleet.runner(spec)
    pulling = Pulling.of(fleet, runner.take())
    assert pulling.statuses() == {200}
    assert repository.call("DELETE", f"manifests/{pulling.digest}").status_code == 202
    assert pulling.statuses() == {404}
    runner.fail(job, [], "its image is gone")


def over_by_cancel(fleet: Fleet, runner: PublicRunner, job: str) -> None:
    fleet.call("POST", f"/v0/projects/{fleet.world.private}/jobs/{job}/cancel")
    fleet.wait_for(job, "canceled")
    runner.disconnect()


def over_by_failure(fleet: Fleet, runner: PublicRunner, job: str) -> None:
    assert runner.fail(job, [], "it broke") is not None
    assert fleet.status(job) == "failed"


@pytest.mark.parametrize("end", [over_by_cancel, over_by_failure])
def test_however_a_job_ends_its_token_ends_with_it(
    fleet: Fleet, end: Callable[[Fleet, PublicRunner, str], None]
) -> None:
    fleet.repository.push_image("ends")
    spec = fleet.spec()
    job = fleet.submit(f"{fleet.world.private}:ends", spec)
    runner = fleet.runner(spec)
    pulling = Pulling.of(fleet, runner.take())
    assert pulling.statuses() == {200}
    end(fleet, runner, job)
    assert pulling.statuses() == {401}


@pytest.fixture(params=["sqlite", "postgresql"])
def hasty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    """A server with leases of a second."""
    jobs = {"jobs": {"heartbeat_timeout_s": 1, "grace_s": 1}}
    with ExitStack() as stack:
        database = None
        if request.param == "postgresql":
            cluster: Cluster = request.getfixturevalue("postgresql_with_tables")
            database = stack.enter_context(cluster.database())
        server = stack.enter_context(running_server(tmp_path / "server", database=database, settings=jobs))
        yield fleet_of(stack, [server])


def test_who_lost_its_lease_pulls_nothing_and_who_got_the_job_does(hasty: Fleet) -> None:
    hasty.repository.push_image("v1")
    spec = hasty.spec()
    job = hasty.submit(f"{hasty.world.private}:v1", spec, retry=True)
    first = hasty.runner(spec)
    lost = Pulling.of(hasty, first.ready())
    # It says nothing more, and its lease runs out; as nothing had begun, another runner may try.
    deadline = time.monotonic() + 60
    while lost.statuses() != {401}:
        assert time.monotonic() < deadline, hasty.status(job)
        time.sleep(0.05)
    refused = lost.ask(f"manifests/{lost.digest}")
    assert "does not hold the job" in refused.json()["message"]
    first.disconnect()
    second = hasty.runner(spec)
    taken = second.take()
    assert taken["uuid"] == job
    deadline = time.monotonic() + 60
    found = Pulling.of(hasty, taken)
    while found.statuses() != {200}:
        # Its lease is as short, and this machine may be slow.
        assert time.monotonic() < deadline
        second.heartbeat()
    assert lost.statuses() == {401}
