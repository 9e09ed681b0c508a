"""Programs that people have, against the registry: skopeo, buildah, oras, over http and https, on both engines."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.integration.server.registry_world import RegistryWorld, make_world

from metalmark.model import Digest
from metalmark.testing.images import FakeImage, FakeLayer, index_of, tar_of, write_layout
from metalmark.testing.running_server import RunningServer, running_server

_TIMEOUT_S = 120


@dataclass(frozen=True, kw_only=True)
class Clients:
    """A registry, and other people's programs that are signed in to it or not."""

    name: str
    """``host:port``."""
    world: RegistryWorld
    folder: Path
    secure: bool

    def run(self, *words: str | Path, fails: bool = False, **environment: str) -> str:
        program = shutil.which(str(words[0]))
        if program is None:
            pytest.skip(f"{words[0]} is not installed (scripts/packages/test)")
        done = subprocess.run(
            [program, *map(str, words[1:])],
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), "TMPDIR": "/var/tmp", **environment},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        assert (done.returncode != 0) is fails, f"{words}: {done.stdout}{done.stderr}"
        return done.stderr if fails else done.stdout.strip()

    def login(self, holder: str) -> Path:
        """Sign in with a key, and return the file that says so."""
        authfile = self.folder / f"auth-{holder}.json"
        self.run("skopeo", "login", *self.tls("--tls-verify=false", cert="--cert-dir"), "--authfile", authfile, "-u",
                 "whoever", "-p", self.world.keys[holder], self.name)  # fmt: skip
        return authfile

    def tls(self, plain: str, *, cert: str) -> list[str]:
        return [cert, str(self.folder)] if self.secure else [plain]

    def copy(self, source: str, target: str, *more: str | Path, fails: bool = False) -> str:
        ways = []
        for side, place in (("src", source), ("dest", target)):
            if place.startswith("docker://"):
                ways += self.tls(f"--{side}-tls-verify=false", cert=f"--{side}-cert-dir")
        return self.run("skopeo", "copy", "-q", *ways, *more, source, target, fails=fails)


def certificate(folder: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed (scripts/packages/test)")
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", folder / "tls.key.pem", "-out", folder / "ca.crt"],
        check=True,
        capture_output=True,
        timeout=60,
    )  # fmt: skip


@pytest.fixture(scope="module", params=["http", "https"])
def clients(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    """Over http with SQLite, over https with PostgreSQL."""
    folder = tmp_path_factory.mktemp("clients")
    if request.param == "http":
        with running_server(folder / "server") as server:
            yield _clients(server, folder, secure=False)
        return
    certificate(folder)
    tls = {"tls": {"certificate_file": folder / "ca.crt", "key_file": folder / "tls.key.pem"}}
    cluster = request.getfixturevalue("postgresql_with_tables")
    with cluster.database() as url, running_server(folder / "server", database=url, settings=tls) as server:
        yield _clients(server, folder, secure=True)


def _clients(server: RunningServer, folder: Path, *, secure: bool) -> Clients:
    return Clients(name=server.url.partition("://")[2], world=make_world(server), folder=folder, secure=secure)


Made = Callable[[str], tuple[Path, FakeImage]]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    def make(architecture: str) -> tuple[Path, FakeImage]:
        layers = [FakeLayer.gzipped(tar_of({f"f{n}": os.urandom(200_000)})) for n in range(3)]
        image = FakeImage(layers=layers, architecture=architecture)
        return write_layout(tmp_path / architecture, image), image

    return make


def test_skopeo_pushes_pulls_copies_lists_and_deletes(clients: Clients, made: Made, tmp_path: Path) -> None:
    auth = clients.login("developer")
    layout, image = made("amd64")
    place = f"docker://{clients.name}/{clients.world.private}"
    clients.copy(f"oci:{layout}", f"{place}:v1", "--authfile", auth)
    clients.copy(f"{place}:v1", f"oci:{tmp_path}/back:v1", "--authfile", auth)
    index = json.loads((tmp_path / "back/index.json").read_text())
    assert index["manifests"][0]["digest"] == str(image.manifest)
    # Into another repository of the registry: layers are mounted.
    clients.copy(f"{place}:v1", f"{place}/inner/app:v2", "--authfile", auth)
    tls = clients.tls("--tls-verify=false", cert="--cert-dir")
    told = json.loads(clients.run("skopeo", "list-tags", *tls, "--authfile", auth, f"{place}/inner/app"))
    assert told["Tags"] == ["v2"]
    seen = json.loads(clients.run("skopeo", "inspect", *tls, "--authfile", auth, f"{place}/inner/app:v2"))
    assert seen["Digest"] == str(image.manifest)
    clients.run("skopeo", "delete", *tls, "--authfile", auth, f"{place}/inner/app:v2")
    assert "unknown" in clients.copy(f"{place}/inner/app:v2", f"dir:{tmp_path}/none", "--authfile", auth, fails=True)


def test_skopeo_copies_an_index_with_all_its_platforms(clients: Clients, made: Made, tmp_path: Path) -> None:
    auth = clients.login("project")
    (_, one), (_, two) = made("amd64"), made("arm64")
    index = index_of([one.descriptor(platform=True), two.descriptor(platform=True)])
    inner = {"mediaType": json.loads(index)["mediaType"], "digest": str(Digest.of(index)), "size": len(index)}
    layout = write_layout(tmp_path / "both", one, two, index=index_of([inner]), blobs={Digest.of(index): index})
    place = f"docker://{clients.name}/{clients.world.private}/many:v1"
    clients.copy(f"oci:{layout}", place, "--all", "--authfile", auth)
    tls = clients.tls("--tls-verify=false", cert="--cert-dir")
    raw = clients.run("skopeo", "inspect", "--raw", *tls, "--authfile", auth, place)
    assert Digest.of(raw.encode()) == Digest.of(index)
    clients.copy(place, f"dir:{tmp_path}/all", "--all", "--authfile", auth)


def test_who_may_not_is_told_so(clients: Clients, made: Made, tmp_path: Path) -> None:
    layout, _ = made("amd64")
    world, place = clients.world, f"docker://{clients.name}"
    developer, stranger = clients.login("developer"), clients.login("stranger")
    clients.copy(f"oci:{layout}", f"{place}/{world.public}:v1", "--authfile", developer)
    clients.copy(f"oci:{layout}", f"{place}/{world.private}:v1", "--authfile", developer)
    # Public images are pulled by whoever comes, without a key.
    clients.copy(f"{place}/{world.public}:v1", f"dir:{tmp_path}/public")
    assert "unauthorized" in clients.copy(f"{place}/{world.private}:v1", f"dir:{tmp_path}/x", fails=True)
    assert "unauthorized" in clients.copy(f"oci:{layout}", f"{place}/{world.public}:v2", fails=True)
    refused = clients.copy(f"oci:{layout}", f"{place}/{world.public}:v2", "--authfile", stranger, fails=True)
    assert "denied" in refused
    assert "unknown" in clients.copy(
        f"{place}/{world.private}:v1", f"dir:{tmp_path}/y", "--authfile", stranger, fails=True
    )
    tls = clients.tls("--tls-verify=false", cert="--cert-dir")
    bad = clients.run("skopeo", "login", *tls, "-u", "x", "-p", world.keys["expired"], clients.name, fails=True,
                      REGISTRY_AUTH_FILE=str(tmp_path / "auth.json"))  # fmt: skip
    assert "invalid username/password" in bad or "unauthorized" in bad


def test_buildah_builds_pushes_and_pulls(clients: Clients, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("buildah needs root to commit a root file system here")
    auth = clients.login("developer")
    store = ["--root", str(tmp_path / "root"), "--runroot", str(tmp_path / "run"), "--storage-driver", "vfs"]
    (tmp_path / "bench").write_bytes(os.urandom(100_000))
    policy = tmp_path / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    box = clients.run("buildah", *store, "from", "scratch")
    clients.run("buildah", *store, "copy", box, tmp_path / "bench", "/bench")
    clients.run("buildah", *store, "commit", "-q", "--signature-policy", policy, box, "made")
    tls = clients.tls("--tls-verify=false", cert="--cert-dir")
    place = f"docker://{clients.name}/{clients.world.private}/built:v1"
    common: list[str | Path] = ["-q", "--authfile", auth, *tls, "--signature-policy", policy]
    clients.run("buildah", *store, "push", *common, "made", place)
    clients.run("buildah", *store, "rmi", "-f", "made")
    assert clients.run("buildah", *store, "pull", *common, place)


def test_oras_pushes_an_artifact_and_pulls_it(
    clients: Clients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oras = pytest.importorskip("oras.client", reason="oras is not installed")
    monkeypatch.setenv("HOME", str(tmp_path))
    if clients.secure:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(clients.folder / "ca.crt"))
    client = oras.OrasClient(hostname=clients.name, insecure=not clients.secure, tls_verify=True)
    client.auth.set_basic_auth("whoever", clients.world.keys["developer"])
    (tmp_path / "result.json").write_text('{"a": 1}')
    monkeypatch.chdir(tmp_path)
    target = f"{clients.name}/{clients.world.private}/artifact:v1"
    assert (
        client.push(target=target, files=["result.json"], manifest_annotations={"made.by": "test"}).status_code == 201
    )
    got = client.pull(target=target, outdir=str(tmp_path / "out"))
    assert [Path(path).read_text() for path in got] == ['{"a": 1}']
    assert client.get_tags(f"{clients.name}/{clients.world.private}/artifact") == ["v1"]
