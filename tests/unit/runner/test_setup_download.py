from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.runner.examinations import DEBIAN
from tests.unit.runner.fake_apt import FakeApt, FakeFirecracker

from metalmark.model import InputError, StableError, TransientError
from metalmark.runner.bundle import Kind, read_bundle, verify_bundle
from metalmark.runner.distribution import Distribution
from metalmark.runner.packages import packages_for
from metalmark.runner.setup_download import Collected, download_bundle

pytestmark = pytest.mark.anyio
NAMES = [package.name for package in packages_for("amd64")]


def mirror(*, without: str = "") -> FakeApt:
    return FakeApt(
        known={name: "1" for name in NAMES if name != without},
        depends={"linux-image-cloud-amd64": ("linux-image-6.1.0-56-cloud-amd64",)},
    )


async def collect(
    folder: Path,
    *,
    apt: FakeApt | None = None,
    unwanted: frozenset[str] = frozenset(),
    release: FakeFirecracker | None = None,
    distribution: Distribution = DEBIAN,
) -> Collected:
    return await download_bundle(
        folder,
        apt=apt or mirror(),
        distribution=distribution,
        architecture="amd64",
        unwanted=unwanted,
        firecracker=release or FakeFirecracker(folder.parent / "bin/firecracker"),
        say=lambda _: None,
    )


async def test_a_folder_holds_everything_and_verifies(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    collected = await collect(folder)
    found = read_bundle(folder, manifest_sha256=collected.manifest_sha256)
    assert found == collected.bundle
    assert found.packages == tuple(NAMES)
    assert {file.kind for file in found.files} == {Kind.PACKAGE, Kind.KERNEL, Kind.FIRECRACKER}
    assert "packages/libc6_1_amd64.deb" in {file.path for file in found.files}
    verify_bundle(folder, found)
    listed = {file.path for file in found.files} | {"manifest.json"}
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == listed


async def test_a_second_collection_drops_what_is_outdated(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    await collect(folder)
    (folder / "packages/runc_0_amd64.deb").touch()
    (folder / "kernel/linux-image-5.10_1_amd64.deb").touch()
    collected = await collect(folder)
    verify_bundle(folder, collected.bundle)
    assert not (folder / "packages/runc_0_amd64.deb").exists()
    assert not (folder / "kernel/linux-image-5.10_1_amd64.deb").exists()


async def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"thesis\.tex") as caught:
        await collect(tmp_path)
    assert caught.value.field == "--download"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


async def test_a_collection_that_breaks_off_has_no_manifest(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    await collect(folder)
    release = FakeFirecracker(tmp_path / "f", error=TransientError("the site is away"))
    with pytest.raises(TransientError) as caught:
        await collect(folder, release=release)
    assert "--without firecracker" in caught.value.hint
    assert not (folder / "manifest.json").exists()
    collected = await collect(folder, release=release, unwanted=frozenset(("firecracker",)))
    assert Kind.FIRECRACKER not in {file.kind for file in collected.bundle.files}


async def test_a_needed_package_must_be_known(tmp_path: Path) -> None:
    with pytest.raises(StableError, match="squashfs-tools"):
        await collect(tmp_path / "a", apt=mirror(without="squashfs-tools"))
    collected = await collect(tmp_path / "b", apt=mirror(without="passt"))
    assert "passt" not in collected.bundle.packages


async def test_parts_can_be_left_out(tmp_path: Path) -> None:
    collected = await collect(tmp_path / "a", unwanted=frozenset(("packages", "firecracker")))
    assert collected.bundle.packages == ()
    assert [file.kind for file in collected.bundle.files] == [Kind.KERNEL]


async def test_other_distributions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StableError, match="not set up automatically"):
        await collect(tmp_path / "a", distribution=Distribution(name="fedora", title="Fedora 41"))
    assert not (tmp_path / "a").exists()


async def test_the_manifest_is_plain_json(tmp_path: Path) -> None:
    await collect(tmp_path / "a")
    shown = json.loads((tmp_path / "a/manifest.json").read_text())
    assert shown["format"] == 1
    assert set(shown["files"][0]) == {"kind", "path", "size_bytes", "sha256"}
