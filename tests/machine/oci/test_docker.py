"""Images made, saved and loaded by Docker itself (Debian's docker.io)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.machine.oci.docker_engine import Docker, build, docker_engine

from metalmark.model import ImageConfig, Platform
from metalmark.oci import ImageCache, PackRequest, PackSource, ResolvedImage, pack, parse_source, pull
from metalmark.system import run

pytestmark = [pytest.mark.anyio, pytest.mark.needs_root]
AMD64 = Platform("linux", "amd64")


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    """Docker's client, bound to an engine of this module's own."""
    with docker_engine(tmp_path_factory.mktemp("docker")) as client:
        yield client


@pytest.fixture(scope="module")
def built(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> str:
    return build(docker, tmp_path_factory.mktemp("context"))


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
