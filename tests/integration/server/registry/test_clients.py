"""Programs that people have, against the registry, over http and https, on both engines and on an object store."""

from __future__ import annotations

import gc
import json
import os
import shutil
import ssl
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest
from tests.integration.oci.peers import serving
from tests.integration.server.authority import Authority, make_authority
from tests.integration.server.engines import PLACES, SOAK, server_at
from tests.integration.server.registry_world import RegistryWorld, make_world

from metalmark.model import Digest, ImageNotFound, Platform, RegistryDenied
from metalmark.oci import (
    ImageCache,
    Patience,
    PushedImage,
    PushRequest,
    Reference,
    RegistryAccess,
    delete_image,
    parse_source,
    pull,
    push,
)
from metalmark.testing.images import FakeImage, FakeLayer, index_of, tar_of, write_layout

# asyncio's own transports below TLS, left when a client's event loop ends before the server has said goodbye; they are
# collected in whichever test comes then.
pytestmark = pytest.mark.filterwarnings("ignore:.*unclosed (transport|<socket):ResourceWarning")
_TIMEOUT_S = 120
QUICK = Patience(connect_s=10, idle_s=30, attempts=3, first_wait_s=0.05)
AMD64 = Platform("linux", "amd64")


@pytest.fixture(autouse=True)
def _transports() -> Iterator[None]:
    """Leave none of these transports to other tests."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@dataclass(frozen=True, kw_only=True)
class Clients:
    """A registry, and other people's programs that are signed in to it or not."""

    name: str
    """``host:port``."""
    world: RegistryWorld
    folder: Path
    authority: Authority | None
    """Of a registry that is spoken to over https."""

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
        return [plain] if self.authority is None else [cert, str(self.authority.folder)]

    def access(self, holder: str) -> RegistryAccess:
        """How our own client speaks to the registry."""
        authority = self.authority
        trusted = None if authority is None else ssl.create_default_context(cafile=authority.ca_file)
        return RegistryAccess(token=self.world.keys[holder], tls=trusted, patience=QUICK, certs_folders=())

    def digest(self, place: str, *words: str | Path) -> str:
        """The digest of what skopeo reads at a place."""
        return str(Digest.of(self.run("skopeo", "inspect", "--raw", *words, place).encode()))

    def copy(self, source: str, target: str, *more: str | Path, fails: bool = False) -> str:
        ways = []
        for side, place in (("src", source), ("dest", target)):
            if place.startswith(f"docker://{self.name}/"):
                ways += self.tls(f"--{side}-tls-verify=false", cert=f"--{side}-cert-dir")
        return self.run("skopeo", "copy", "-q", *ways, *more, source, target, fails=fails)


WAYS = [f"{protocol}, {place}" for protocol, place in zip(("http", "https", "https"), PLACES, strict=False)]
if SOAK:
    WAYS = [f"{protocol}, {place}" for protocol in ("http", "https") for place in PLACES]


@pytest.fixture(scope="module", params=WAYS)
def clients(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    """Clients of a server of each engine and each storage; over https its certificate is one of a test's authority."""
    folder = tmp_path_factory.mktemp("clients")
    protocol, _, place = request.param.partition(", ")
    authority = make_authority(folder / "authority", "localhost", "127.0.0.1") if protocol == "https" else None
    settings = {} if authority is None else {"tls": authority.tls}
    with server_at(place, request, tmp_path_factory, settings=settings) as server:
        yield Clients(name=server.url.partition("://")[2], world=make_world(server), folder=folder, authority=authority)


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


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder of few characters: podman takes no run root of more than fifty."""
    with tempfile.TemporaryDirectory(prefix="mm-", dir="/tmp") as name:
        yield Path(name)


def test_podman_signs_in_pushes_and_pulls_an_image_and_an_index(
    clients: Clients, made: Made, tmp_path: Path, short_folder: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("podman needs root to unpack an image here")
    place, tls = f"{clients.name}/{clients.world.private}/podman", clients.tls("--tls-verify=false", cert="--cert-dir")
    auth = ["--authfile", str(tmp_path / "auth.json")]

    def podman(*words: str | Path, fails: bool = False) -> str:
        where = [word for name in ("root", "runroot", "tmpdir") for word in (f"--{name}", short_folder / name)]
        return clients.run("podman", *where, "--storage-driver", "vfs", *words, fails=fails)

    (one, _), (other, _) = made("amd64"), made("arm64")
    first = podman("pull", "-q", f"oci:{one}").splitlines()[-1]
    second = podman("pull", "-q", f"oci:{other}").splitlines()[-1]
    assert podman("push", "-q", *auth, *tls, first, f"docker://{place}:v1", fails=True)
    podman("login", *auth, *tls, "-u", "whoever", "-p", clients.world.keys["developer"], clients.name)
    podman("push", "-q", *auth, *tls, first, f"docker://{place}:v1")
    podman("push", "-q", *auth, *tls, second, f"docker://{place}:v2")
    podman("rmi", "-f", first, second)
    pulled = podman("pull", "-q", *auth, *tls, f"{place}:v1").splitlines()[-1]
    assert pulled == first, "an image's identifier is the digest of its configuration"
    podman("manifest", "create", "many")
    for tag in ("v1", "v2"):
        podman("manifest", "add", *auth, *tls, "many", f"docker://{place}:{tag}")
    podman("manifest", "push", "--all", *auth, *tls, "many", f"docker://{place}:many")
    podman("manifest", "rm", "many")
    told = json.loads(clients.run("skopeo", "inspect", "--raw", *tls, *auth, f"docker://{place}:many"))
    assert {entry["platform"]["architecture"] for entry in told["manifests"]} == {"amd64", "arm64"}
    assert podman("pull", "-q", "--arch", "amd64", *auth, *tls, f"{place}:many").splitlines()[-1] == first


@pytest.fixture(scope="module")
def debians(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Debian's docker-registry."""
    with serving(tmp_path_factory.mktemp("registry") / "debian") as name:
        yield name


def index_layout(folder: Path, *images: FakeImage) -> tuple[Path, Digest]:
    """A layout with one index of images."""
    index = index_of([image.descriptor(platform=True) for image in images])
    digest = Digest.of(index)
    inner = {"mediaType": json.loads(index)["mediaType"], "digest": str(digest), "size": len(index)}
    return write_layout(folder, *images, index=index_of([inner]), blobs={digest: index}), digest


def test_skopeo_copies_to_another_registry_and_back(clients: Clients, made: Made, debians: str, tmp_path: Path) -> None:
    auth = ["--authfile", clients.login("developer")]
    (_, one), (_, two) = made("amd64"), made("arm64")
    layout, digest = index_layout(tmp_path / "both", one, two)
    name = Path(clients.folder).name
    here, there = f"docker://{clients.name}/{clients.world.private}", f"docker://{debians}/{name}:v1"
    clients.copy(f"oci:{layout}", f"{here}/out:v1", "--all", *auth)
    clients.copy(f"{here}/out:v1", there, "--all", "--dest-tls-verify=false", *auth)
    assert clients.digest(there, "--tls-verify=false") == str(digest)
    clients.copy(there, f"{here}/back:v1", "--all", "--src-tls-verify=false", *auth)
    tls = clients.tls("--tls-verify=false", cert="--cert-dir")
    assert clients.digest(f"{here}/back:v1", *tls, *auth) == str(digest)
    clients.copy(f"{here}/back:v1", f"dir:{tmp_path}/all", "--all", *auth)


def test_our_client_pushes_pulls_copies_and_deletes(clients: Clients, made: Made, debians: str, tmp_path: Path) -> None:
    (_, one), (_, two) = made("amd64"), made("arm64")
    layout, digest = index_layout(tmp_path / "both", one, two)
    here, there = f"{clients.name}/{clients.world.private}/ours", f"{debians}/ours-{Path(clients.folder).name}"
    own, other = clients.access("developer"), RegistryAccess(patience=QUICK, certs_folders=())

    async def sent(source: object, target: str, by: RegistryAccess, of: RegistryAccess = other) -> PushedImage:
        where = Reference.parse(target)
        request = PushRequest(
            source=parse_source(str(source)), target=where, access=by, source_access=of, scratch=tmp_path
        )
        return await push(request)

    async def all_of_it() -> None:
        first = await sent(layout, f"{here}:v1", own)
        assert (first.digest, first.manifests, first.uploaded) == (digest, 3, first.blobs)
        assert (await sent(f"docker://{here}:v1", f"{there}:v1", other, own)).digest == digest
        back = await sent(f"docker://{there}:v1", f"{here}/back:v1", own)
        assert (back.digest, back.uploaded) == (digest, back.blobs), "another repository has blobs of its own"
        moved = await sent(f"docker://{here}:v1", f"{here}/moved:v1", own, own)
        assert (moved.digest, moved.uploaded) == (digest, 0), "within a registry blobs are mounted"
        with ImageCache(tmp_path / "cache") as cache:
            found = await pull(parse_source(f"{here}/back:v1"), cache=cache, platform=AMD64, access=own)
            assert found.digest == one.manifest
        await delete_image(Reference.parse(f"{here}/back@{digest}"), own)
        for nobody in (clients.access("viewer"), clients.access("stranger")):
            with pytest.raises((RegistryDenied, ImageNotFound)):
                await delete_image(Reference.parse(f"{here}:v1"), nobody)
        with ImageCache(tmp_path / "empty") as cache, pytest.raises(ImageNotFound):
            await pull(parse_source(f"{here}/back:v1"), cache=cache, platform=AMD64, access=own)
        if clients.authority is not None:
            doubtful = RegistryAccess(token=own.token, patience=QUICK, certs_folders=(), plain_http=False)
            with pytest.raises(RegistryDenied, match="certificate"):
                await sent(layout, f"{here}:v2", doubtful)

    anyio.run(all_of_it)


def test_oras_pushes_an_artifact_and_pulls_it(
    clients: Clients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oras = pytest.importorskip("oras.client", reason="oras is not installed")
    monkeypatch.setenv("HOME", str(tmp_path))
    if clients.authority is not None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(clients.authority.ca_file))
    client = oras.OrasClient(hostname=clients.name, insecure=clients.authority is None, tls_verify=True)
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
    assert client.delete_tag(target, "v1")
    assert client.get_tags(f"{clients.name}/{clients.world.private}/artifact") == []
