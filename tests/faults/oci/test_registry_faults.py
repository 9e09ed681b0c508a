"""Registries that cut, stall, lie and fail; full disks; several pullers; pullers that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

from metalmark.model import Digest, DigestMismatch, LayerRefused, NoSpace, Platform, RegistryUnavailable
from metalmark.oci import ImageCache, Patience, RegistryAccess, ResolvedImage, collect, parse_source, pull
from metalmark.testing.images import FakeImage, FakeLayer, tar_of
from metalmark.testing.registry import Behaviour, StandInRegistry

pytestmark = pytest.mark.anyio
AMD64 = Platform("linux", "amd64")
LAYERS = [FakeLayer.gzipped(tar_of({f"{number}": os.urandom(300_000)})) for number in range(2)]
IMAGE = FakeImage(layers=LAYERS)
QUICK = Patience(connect_s=2, idle_s=0.3, attempts=3, first_wait_s=0.01, longest_wait_s=0.05)
PULLER = """
import sys, anyio
from pathlib import Path
from metalmark.model import Platform
from metalmark.oci import ImageCache, RegistryAccess, parse_source, pull
async def main():
    with ImageCache(Path(sys.argv[1])) as cache:
        image = await pull(parse_source(sys.argv[2]), cache=cache, platform=Platform("linux", "amd64"),
                           access=RegistryAccess(certs_folders=()))
        print(image.digest, image.cached)
anyio.run(main)
"""


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[ImageCache]:
    with ImageCache(tmp_path / "cache") as cache:
        yield cache


def start(argv: list[str], **streams: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(argv, **streams)  # type: ignore[call-overload, no-any-return]


async def take(registry: StandInRegistry, cache: ImageCache, patience: Patience = QUICK) -> ResolvedImage:
    access = RegistryAccess(patience=patience, certs_folders=())
    return await pull(parse_source(f"{registry.name}/app:latest"), cache=cache, platform=AMD64, access=access)


def nothing_is_taken_for_complete(cache: ImageCache) -> bool:
    layers = {Digest.of(layer.blob) for layer in LAYERS}
    partial = cache.images / "partial"
    return not (
        cache.images_held()
        or any(cache.has(layer) for layer in layers)
        or (partial.is_dir() and any(partial.iterdir()))
    )


@pytest.mark.parametrize("ignore_range", [False, True])
async def test_a_registry_that_cuts_is_resumed(cache: ImageCache, ignore_range: bool) -> None:
    with StandInRegistry(Behaviour(cut_after=100_000, ignore_range=ignore_range)) as registry:
        registry.push(IMAGE)
        if ignore_range:
            with pytest.raises(RegistryUnavailable, match="tried 3 times"):
                await take(registry, cache)
            assert nothing_is_taken_for_complete(cache)
            return
        found = await take(registry, cache)
        assert [layer.path.read_bytes() for layer in found.layers] == [layer.blob for layer in LAYERS]
        ranges = [seen.range for seen in registry.seen if seen.range]
        assert "bytes=100000-" in ranges, "what had come was not asked for again"


async def test_a_registry_without_ranges_is_read_from_the_start(cache: ImageCache) -> None:
    with StandInRegistry(Behaviour(cut_after=100_000, ignore_range=True)) as registry:
        registry.push(IMAGE)

        def mend(_digest: str) -> None:
            if len([path for path in registry.paths() if "/blobs/" in path]) > 4:
                registry.behaviour.cut_after = 0

        registry.behaviour.on_blob = mend
        found = await take(registry, cache)
        assert [layer.path.read_bytes() for layer in found.layers] == [layer.blob for layer in LAYERS]


async def test_a_registry_that_sends_another_range_is_refused(cache: ImageCache) -> None:
    with StandInRegistry(Behaviour(cut_after=100_000, wrong_range=True)) as registry:
        registry.push(IMAGE)
        with pytest.raises(DigestMismatch, match="from byte 100000"):
            await take(registry, cache)
        assert nothing_is_taken_for_complete(cache)


@pytest.mark.parametrize("after", [0, 50_000])
async def test_a_registry_that_stalls_is_given_up(cache: ImageCache, after: int) -> None:
    with StandInRegistry(Behaviour(stall_after=after)) as registry:
        registry.push(IMAGE)
        patience = Patience(connect_s=1, idle_s=0.2, attempts=2, first_wait_s=0.01, longest_wait_s=0.02)
        if after:
            registry.behaviour.ignore_range = True
        with anyio.fail_after(20):
            with pytest.raises(RegistryUnavailable, match="in time"):
                await take(registry, cache, patience)
        assert nothing_is_taken_for_complete(cache)


async def test_a_registry_that_damages_is_found_out(cache: ImageCache) -> None:
    with StandInRegistry(Behaviour(corrupt=True)) as registry:
        registry.push(IMAGE)
        with pytest.raises((DigestMismatch, LayerRefused), match="layer sha256:"):
            await take(registry, cache)
        assert nothing_is_taken_for_complete(cache)


@pytest.mark.parametrize("lie", [-1, 1, 1 << 40])
async def test_a_registry_that_lies_about_length_is_found_out(cache: ImageCache, lie: int) -> None:
    with StandInRegistry(Behaviour(announce=lambda length: length + lie)) as registry:
        registry.push(IMAGE)
        with pytest.raises(DigestMismatch, match="announces"):
            await take(registry, cache)
        assert nothing_is_taken_for_complete(cache)


async def test_passing_failures_are_waited_out(cache: ImageCache) -> None:
    with StandInRegistry() as registry:
        registry.push(IMAGE)
        registry.behaviour.failures = [(503, {}), (429, {"Retry-After": "0"}), (502, {}), (500, {})]
        # Four failures, no more than two in a row for one request.
        patience = Patience(connect_s=1, idle_s=1, attempts=5, first_wait_s=0.001, longest_wait_s=0.01)
        assert (await take(registry, cache, patience)).digest == IMAGE.manifest


@pytest.mark.parametrize(
    ("status", "headers"), [(503, {}), (429, {"Retry-After": "3600"}), (500, {"Retry-After": "x"})]
)
async def test_lasting_failures_end_in_the_right_error(cache: ImageCache, status: int, headers: dict[str, str]) -> None:
    with StandInRegistry(Behaviour(failures=[(status, headers)] * 9)) as registry:
        registry.push(IMAGE)
        with anyio.fail_after(10):
            with pytest.raises(RegistryUnavailable, match=f"{status}.*tried 3 times"):
                await take(registry, cache)
        assert len(registry.paths()) == 3


async def test_a_registry_that_is_not_there_is_unavailable(cache: ImageCache) -> None:
    with StandInRegistry() as registry:
        gone = registry.name
    access = RegistryAccess(patience=QUICK, certs_folders=())
    with pytest.raises(RegistryUnavailable, match=gone):
        await pull(parse_source(f"{gone}/app"), cache=cache, platform=AMD64, access=access)


async def test_cancellation_leaves_nothing(cache: ImageCache) -> None:
    with StandInRegistry(Behaviour(stall_after=60_000)) as registry:
        registry.push(IMAGE)
        patience = Patience(idle_s=60)
        with anyio.move_on_after(0.5) as scope:
            await take(registry, cache, patience)
        assert scope.cancelled_caught
        assert nothing_is_taken_for_complete(cache)


async def test_several_processes_fetch_each_layer_once(tmp_path: Path) -> None:
    with StandInRegistry() as registry:
        registry.push(IMAGE)
        argv = [sys.executable, "-c", PULLER, str(tmp_path / "cache"), f"{registry.name}/app:latest"]
        pullers = [start(argv, stdout=subprocess.PIPE) for _ in range(4)]
        answers = [puller.communicate(timeout=60)[0].decode().split()[0] for puller in pullers]
        assert answers == [str(IMAGE.manifest)] * 4
        fetched = [path for path in registry.paths() if any(str(Digest.of(layer.blob)) in path for layer in LAYERS)]
        assert len(fetched) == len(LAYERS), "a layer came twice"
    with ImageCache(tmp_path / "cache") as cache:
        (held,) = cache.images_held()
        assert held.record.blobs == set(IMAGE.blobs)
        assert not list((cache.images / "leases").iterdir())


async def test_kill_9_in_the_middle_leaves_nothing_that_counts(cache: ImageCache) -> None:
    large = FakeImage(layers=[FakeLayer.gzipped(tar_of({"large": os.urandom(3_000_000)}))])
    with StandInRegistry(Behaviour(stall_after=2_000_000)) as registry:
        registry.push(large)
        await kill_when(cache, registry, lambda path: path.stat().st_size > 0)
        assert list((cache.images / "partial").iterdir())
        assert not cache.images_held()
        registry.behaviour.stall_after = -1
        found = await take(registry, cache)
        assert [layer.path.read_bytes() for layer in found.layers] == [layer.blob for layer in large.layers]
        assert not list((cache.images / "partial").iterdir())


async def test_kill_9_and_never_again_is_swept_by_clean_up(cache: ImageCache) -> None:
    with StandInRegistry(Behaviour(stall_after=100_000)) as registry:
        registry.push(IMAGE)
        await kill_when(cache, registry, lambda path: True)
    collect(cache, max_bytes=1 << 40)
    assert not list((cache.images / "partial").iterdir())
    assert not list((cache.images / "leases").iterdir())
    assert not list(cache.stored())


async def kill_when(cache: ImageCache, registry: StandInRegistry, ready: Callable[[Path], bool]) -> None:
    """Start a puller in a process and kill it when one of its partial files is ready."""
    partial = cache.images / "partial"
    with start([sys.executable, "-c", PULLER, str(cache.folder), f"{registry.name}/app:latest"]) as puller:
        try:
            with anyio.fail_after(30):
                while not (partial.is_dir() and any(ready(path) for path in partial.iterdir())):
                    await anyio.sleep(0.02)
        finally:
            puller.send_signal(signal.SIGKILL)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", folder], check=False).returncode:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


async def test_a_full_disk_is_told_and_leaves_nothing(small_disk: Path) -> None:
    with StandInRegistry() as registry, ImageCache(small_disk) as cache:
        registry.push(IMAGE)
        with pytest.raises(NoSpace, match="no space") as caught:
            await take(registry, cache)
        assert "image gc" in caught.value.hint
        assert not list((cache.images / "partial").iterdir())
        assert not cache.images_held()
