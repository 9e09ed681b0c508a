"""Images made, saved, loaded and pushed by Docker itself (Debian's docker.io)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from metalmark.model import ImageConfig, Platform
from metalmark.oci import ImageCache, PackRequest, PackSource, ResolvedImage, pack, parse_source, pull
from metalmark.system import run
from metalmark.testing.running_server import running_server

pytestmark = [pytest.mark.anyio, pytest.mark.needs_root]
AMD64 = Platform("linux", "amd64")
Docker = Callable[..., str]
DOCKERFILE = """
FROM scratch
COPY busybox /bin/busybox
ENV FROM_DOCKER=yes
WORKDIR /work
USER 1000:1000
ENTRYPOINT ["/bin/busybox", "echo"]
CMD ["hello"]
LABEL made.by=docker
"""


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    """Docker's client, bound to an engine of this module's own."""
    if os.geteuid() != 0:
        pytest.skip("starting a Docker engine needs root")
    for name in ("docker", "dockerd", "unshare"):
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed (docker.io, util-linux)")
    before = set(Path("/sys/fs/cgroup").glob("*/docker")) | set(Path("/sys/fs/cgroup").glob("docker"))
    folder = tmp_path_factory.mktemp("docker")
    socket = f"unix://{folder}/sock"
    # In a mount namespace of its own, every mount of the engine goes when the engine goes.
    argv = ["unshare", "--mount", "--propagation", "private", "dockerd", "--bridge=none", "--iptables=false",
            "--ip6tables=false", "--storage-driver=vfs", "--data-root", folder / "data", "--exec-root", folder / "exec",
            "-p", folder / "pid", "-H", socket]  # fmt: skip

    def client(*words: str | Path) -> str:
        environment = {**os.environ, "DOCKER_HOST": socket, "DOCKER_CONFIG": str(folder), "DOCKER_BUILDKIT": "0"}
        done = subprocess.run(
            ["docker", *map(str, words)], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"docker {words}: {done.stderr}"
        return done.stdout.strip()

    with (folder / "log").open("wb") as log:
        engine = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)
    try:
        _await_engine(client, engine, folder / "log")
        yield client
    finally:
        engine.terminate()
        try:
            engine.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(engine.pid, signal.SIGKILL)
            engine.wait()
        for cgroup in (
            set(Path("/sys/fs/cgroup").glob("*/docker")) | set(Path("/sys/fs/cgroup").glob("docker"))
        ) - before:
            with suppress(OSError):
                cgroup.rmdir()


def _await_engine(client: Docker, engine: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if engine.poll() is not None:
            pytest.skip(f"the Docker engine does not start here: {log.read_text()[-300:]}")
        with suppress(AssertionError):
            client("info")
            return
        time.sleep(0.1)
    pytest.skip("the Docker engine does not answer within 60 s")


@pytest.fixture(scope="module")
def built(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> str:
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not installed (busybox-static)")
    context = tmp_path_factory.mktemp("context")
    shutil.copy(busybox, context / "busybox")
    (context / "Dockerfile").write_text(DOCKERFILE)
    docker("build", "-q", "--network", "none", "-t", "team/app:v1", context)
    return "team/app:v1"


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[ImageCache]:
    with ImageCache(tmp_path / "cache") as cache:
        yield cache


async def take(cache: ImageCache, text: object) -> ResolvedImage:
    return await pull(parse_source(str(text)), cache=cache, platform=AMD64)


async def test_a_saved_image_packed_and_unpacked(docker: Docker, built: str, cache: ImageCache, tmp_path: Path) -> None:
    docker("save", "-o", tmp_path / "saved.tar", built)
    found = await take(cache, tmp_path / "saved.tar")
    config = found.config
    assert (config.entrypoint, config.cmd) == (("/bin/busybox", "echo"), ("hello",))
    assert (config.workdir, config.user, config.labels["made.by"]) == ("/work", "1000:1000", "docker")
    assert "FROM_DOCKER=yes" in config.env
    (tmp_path / "saved").mkdir()
    taken_apart = await run(["tar", "-C", str(tmp_path / "saved"), "-xf", str(tmp_path / "saved.tar")], timeout_s=60)
    assert taken_apart.returncode == 0, taken_apart.error_text
    unpacked = await take(cache, tmp_path / "saved")
    assert (unpacked.digest, unpacked.cached) == (found.digest, True)
    assert (await take(cache, f"docker-archive:{tmp_path}/saved.tar:{built}")).digest == found.digest


async def test_two_images_saved_together(docker: Docker, built: str, cache: ImageCache, tmp_path: Path) -> None:
    docker("tag", built, "team/app:v2")
    docker("save", "-o", tmp_path / "saved.tar", built, "team/app:v2")
    assert (await take(cache, f"docker-archive:{tmp_path}/saved.tar:team/app:v2")).config.cmd == ("hello",)


def test_docker_loads_and_runs_what_is_packed_here(docker: Docker, tmp_path: Path) -> None:
    busybox = shutil.which("busybox")
    assert busybox is not None or pytest.skip("busybox is not installed (busybox-static)")
    request = PackRequest(
        sources=(PackSource.parse(f"{busybox}:/bin/busybox"),),
        config=ImageConfig(entrypoint=("/bin/busybox", "echo"), cmd=("packed",)),
        platform=AMD64,
        tag="v9",
    )
    pack(request, tmp_path / "packed.tar", archive=True)
    assert "metalmark/image:v9" in docker("load", "-i", tmp_path / "packed.tar")
    assert docker("run", "--rm", "--network", "none", "metalmark/image:v9") == "packed"


def test_docker_signs_in_pushes_and_pulls_at_a_server(docker: Docker, built: str, tmp_path: Path) -> None:
    with running_server(tmp_path / "server") as server:
        # Docker takes plain http on loopback only, and of itself.
        registry = server.url.partition("://")[2]
        docker("login", "-u", "whoever", "-p", server.admin_key, registry)
        docker("tag", built, f"{registry}/bench/app:v1")
        docker("push", "-q", f"{registry}/bench/app:v1")
        pushed = docker("image", "inspect", "-f", "{{index .RepoDigests 0}}", f"{registry}/bench/app:v1")
        docker("rmi", "-f", f"{registry}/bench/app:v1", built)
        docker("logout", registry)
        # The project that the push made is public: nobody needs a key to pull.
        docker("pull", "-q", f"{registry}/bench/app:v1")
        assert docker("image", "inspect", "-f", "{{index .RepoDigests 0}}", f"{registry}/bench/app:v1") == pushed
        docker("tag", f"{registry}/bench/app:v1", built)
