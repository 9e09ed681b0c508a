from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.runner.fake_apt import FakeApt, FakeFirecracker
from tests.unit.runner.test_bundle import collect

from metalmark.model import DigestMismatch, InputError
from metalmark.runner import setup
from metalmark.runner.bundle import write_bundle
from metalmark.runner.packages import packages_for
from metalmark.runner.setup import Setup, prepare_setup
from metalmark.runner.setup_plan import InstallPackages, UnpackKernel
from metalmark.sandbox import DriverSettings
from metalmark.system import Folders

pytestmark = pytest.mark.anyio
OS_RELEASE = "ID=debian\nVERSION_ID=12\n"


async def prepare(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    folder: Path | None = None,
    manifest_sha256: str | None = None,
    os_release: str = OS_RELEASE,
) -> Setup:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    names = [package.name for package in packages_for("amd64")]
    monkeypatch.setattr(setup, "Apt", lambda _environment: FakeApt(known=dict.fromkeys(names, "1")))
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True, exist_ok=True)
    (root / "etc/os-release").write_text(os_release)
    home = tmp_path / "home"
    folders = Folders(state=home / "state", cache=home / "cache", run=home / "run", config=home / "config")
    return await prepare_setup(
        DriverSettings(folders=folders, machine="x86_64", kvm_device=tmp_path / "no-kvm"),
        environment={},
        firecracker=FakeFirecracker(tmp_path / "bin/firecracker"),
        folder=folder,
        manifest_sha256=manifest_sha256,
        root=root,
    )


def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    write_bundle(folder, collect(folder))
    return folder


async def test_preparing_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = await prepare(tmp_path, monkeypatch)
    assert [type(action) for action in prepared.plan.actions] == [InstallPackages, UnpackKernel]
    assert not (tmp_path / "home").exists()


async def test_a_folder_is_planned_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = bundle(tmp_path)
    prepared = await prepare(tmp_path, monkeypatch, folder=folder)
    assert {action.bundle for action in prepared.plan.actions if isinstance(action, InstallPackages)} == {folder}


@pytest.mark.parametrize("os_release", ["ID=debian\nVERSION_ID=13\n", "ID=ubuntu\nVERSION_ID=12\n"])
async def test_a_folder_for_another_system_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, os_release: str
) -> None:
    with pytest.raises(InputError, match="collected for debian 12 amd64") as caught:
        await prepare(tmp_path, monkeypatch, folder=bundle(tmp_path), os_release=os_release)
    assert caught.value.field == "--from"


async def test_a_tampered_folder_is_refused_before_and_after_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bundle(tmp_path)
    prepared = await prepare(tmp_path, monkeypatch, folder=folder)
    (folder / "kernel/linux-image-6.1_amd64.deb").write_bytes(b"KERNEL")
    with pytest.raises(DigestMismatch, match="nothing of it was installed"):
        await prepared.apply(lambda _: None)
    assert not (tmp_path / "home").exists()
    with pytest.raises(DigestMismatch):
        await prepare(tmp_path, monkeypatch, folder=folder)


async def test_another_manifest_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DigestMismatch):
        await prepare(tmp_path, monkeypatch, folder=bundle(tmp_path), manifest_sha256="0" * 64)
