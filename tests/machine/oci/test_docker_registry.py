"""Docker's own engine against the registry, over http and, with the certificate of a test's authority, over https."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import pytest
from tests.integration.oci.peers import serving
from tests.integration.server.authority import make_authority
from tests.integration.server.engines import SOAK
from tests.integration.server.object_stores import bucket, object_store
from tests.integration.server.registry_world import RegistryWorld, make_world
from tests.machine.oci.docker_engine import Docker, build, docker_engine

from metalmark.oci import Reference, RegistryAccess, delete_image
from metalmark.testing.postgresql import find_postgresql, running_postgresql
from metalmark.testing.running_server import running_server

pytestmark = [pytest.mark.needs_root]
ADDRESS = "10.231.9.1"


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A Docker engine, the registry, and an image that was built here."""

    docker: Docker
    registry: str
    """``host:port``."""
    world: RegistryWorld
    built: str
    access: RegistryAccess
    """Of our own client, as who may."""
    plain: bool

    def sign_in(self, holder: str = "developer") -> None:
        self.docker("login", "-u", "whoever", "-p", self.world.keys[holder], self.registry)

    def place(self, name: str) -> str:
        return f"{self.registry}/{self.world.private}/{name}"

    def push(self, name: str, image: str = "") -> str:
        """Push an image, and return the digest of its manifest."""
        self.docker("tag", image or self.built, name)
        self.docker("push", "-q", name)
        return self.digest(name)

    def digest(self, name: str) -> str:
        repository = name.rpartition(":")[0]
        names = json.loads(self.docker("image", "inspect", "-f", "{{json .RepoDigests}}", name))
        (digest,) = [each.partition("@")[2] for each in names if each.startswith(f"{repository}@")]
        return digest

    def pull(self, name: str) -> str:
        """Forget an image, pull it, and return the digest of its manifest."""
        self.docker("rmi", "-f", name)
        self.docker("pull", "-q", name)
        return self.digest(name)


def address_of_a_link(stack: ExitStack) -> str:
    """Give this machine an address that is no loopback: of registries there Docker checks no certificate."""
    link = f"mm{os.getpid()}"
    subprocess.run(["ip", "link", "add", f"{link}a", "type", "veth", "peer", "name", f"{link}b"], check=True)
    stack.callback(subprocess.run, ["ip", "link", "del", f"{link}a"], check=True)
    subprocess.run(["ip", "addr", "add", f"{ADDRESS}/32", "dev", f"{link}a"], check=True)
    return ADDRESS


WAYS = ["http, sqlite, folder", "https, postgresql, folder"]
if SOAK:
    WAYS += ["https, sqlite, objects", "http, postgresql, objects"]


@pytest.fixture(scope="module", params=WAYS)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    if os.geteuid() != 0:
        pytest.skip("starting a Docker engine needs root")
    folder = tmp_path_factory.mktemp("docker")
    (folder / "engine").mkdir()
    (folder / "context").mkdir()
    protocol, database_engine, storage = request.param.split(", ")
    plain = protocol == "http"
    host, environment, trusted = "127.0.0.1", {}, None
    given: dict[str, Any] = {}
    with ExitStack() as stack:
        if database_engine == "postgresql":
            if find_postgresql() is None:
                pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
            given["database"] = stack.enter_context(stack.enter_context(running_postgresql()).database())
        if not plain:
            host = address_of_a_link(stack)
            authority = make_authority(folder / "authority", host)
            environment = {"SSL_CERT_FILE": str(authority.ca_file)}
            trusted = ssl.create_default_context(cafile=authority.ca_file)
            given["settings"] = {"tls": authority.tls, "server": {"bind": f"{host}:0"}}
        if storage == "objects":
            store = stack.enter_context(object_store("versitygw", folder / "store"))
            given["storage"] = stack.enter_context(bucket(store)).storage
        server = stack.enter_context(running_server(folder / "server", **given))
        docker = stack.enter_context(docker_engine(folder / "engine", environment))
        world = make_world(server)
        yield Engine(
            docker=docker,
            registry=f"{host}:{server.url.rpartition(':')[2]}",
            world=world,
            built=build(docker, folder / "context"),
            access=RegistryAccess(token=world.keys["developer"], tls=trusted, plain_http=plain, certs_folders=()),
            plain=plain,
        )


def test_docker_signs_in_pushes_pulls_and_signs_out(engine: Engine) -> None:
    name = engine.place("app:v1")
    engine.docker("tag", engine.built, name)
    engine.docker("push", "-q", name, fails=True)
    engine.sign_in()
    digest = engine.push(name)
    assert engine.pull(name) == digest
    assert engine.docker("run", "--rm", "--network", "none", name) == "hello"
    engine.docker("logout", engine.registry)
    engine.docker("rmi", "-f", name)
    engine.docker("pull", "-q", name, fails=True)
    refused = engine.docker("login", "-u", "x", "-p", engine.world.keys["expired"], engine.registry, fails=True)
    assert "unauthorized" in refused.lower()


def test_a_first_push_makes_a_public_project(engine: Engine) -> None:
    engine.sign_in("stranger")
    name = f"{engine.registry}/made-{uuid4().hex[:8]}/app:v1"
    digest = engine.push(name)
    engine.docker("logout", engine.registry)
    assert engine.pull(name) == digest


def test_docker_copies_to_another_registry_and_back(engine: Engine, tmp_path: Path) -> None:
    engine.sign_in()
    digest = engine.push(engine.place("out:v1"))
    with serving(tmp_path / "debian") as other:
        assert engine.push(f"{other}/app:v1", engine.place("out:v1")) == digest
        assert engine.pull(f"{other}/app:v1") == digest
        assert engine.push(engine.place("back:v1"), f"{other}/app:v1") == digest
    assert engine.pull(engine.place("back:v1")) == digest


def test_docker_pushes_an_index_and_pulls_by_platform(engine: Engine, tmp_path: Path) -> None:
    engine.sign_in()
    insecure = ["--insecure"] if engine.plain else []
    names = {}
    for architecture in ("amd64", "arm64"):
        context = tmp_path / architecture
        context.mkdir()
        made = build(engine.docker, context, f"built/{architecture}:v1", "--label", f"for={architecture}")
        names[architecture] = engine.place(f"many:{architecture}")
        engine.push(names[architecture], made)
    index = engine.place("many:all")
    engine.docker("manifest", "create", *insecure, index, *names.values())
    engine.docker("manifest", "annotate", "--arch", "arm64", "--os", "linux", index, names["arm64"])
    engine.docker("manifest", "push", *insecure, index)
    engine.docker("pull", "-q", "--platform", "linux/arm64", index)
    assert engine.docker("image", "inspect", "-f", '{{index .Config.Labels "for"}}', index) == "arm64"


def test_what_is_deleted_is_not_pulled(engine: Engine) -> None:
    engine.sign_in()
    name = engine.place("gone:v1")
    digest = engine.push(name)
    anyio.run(delete_image, Reference.parse(f"{engine.place('gone')}@{digest}"), engine.access)
    engine.docker("rmi", "-f", name)
    assert "not found" in engine.docker("pull", "-q", name, fails=True).lower()
