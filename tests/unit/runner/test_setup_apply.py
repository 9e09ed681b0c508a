from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.runner.fake_apt import FakeApt, FakeFirecracker

from metalmark.model import StableError, TransientError
from metalmark.runner import setup_apply
from metalmark.runner.setup_apply import SetupReport, SetupRun
from metalmark.runner.setup_plan import Action, InstallFirecracker, InstallPackages, SetupPlan, UnpackKernel

pytestmark = pytest.mark.anyio
KNOWN = {"runc": "1", "qemu-system-x86": "1"}


async def apply(
    tmp_path: Path, apt: FakeApt, *actions: Action, firecracker: FakeFirecracker | None = None
) -> SetupReport:
    said: list[str] = []
    release = firecracker or FakeFirecracker(tmp_path / "bin/firecracker")
    return await SetupRun(apt=apt, firecracker=release, say=said.append).apply(SetupPlan(actions=actions))


async def test_lists_are_fetched_before_packages(tmp_path: Path) -> None:
    apt = FakeApt(known=KNOWN)
    report = await apply(tmp_path, apt, InstallPackages(names=("runc", "qemu-system-x86")))
    assert apt.calls == ["update", "install runc qemu-system-x86"]
    assert report.done == ("installed runc, qemu-system-x86",)
    assert report.failed == ()


async def test_an_optional_package_that_is_not_there_is_left_out(tmp_path: Path) -> None:
    apt = FakeApt(known=KNOWN)
    await apply(tmp_path, apt, InstallPackages(names=("passt", "runc")))
    assert apt.calls[-1] == "install runc"


async def test_a_needed_package_that_is_not_there_fails(tmp_path: Path) -> None:
    apt = FakeApt(known=KNOWN)
    report = await apply(tmp_path, apt, InstallPackages(names=("squashfs-tools", "runc")))
    assert [str(error) for _, error in report.failed] == ["apt has no package squashfs-tools"]
    assert "install" not in " ".join(apt.calls)


async def test_old_lists_will_do_when_the_mirror_is_away(tmp_path: Path) -> None:
    apt = FakeApt(known=KNOWN, update_error=TransientError("apt-get update failed"))
    report = await apply(tmp_path, apt, InstallPackages(names=("runc",)))
    assert report.failed == ()
    assert apt.calls == ["update", "install runc"]


async def test_one_failure_does_not_keep_the_rest_from_being_done(tmp_path: Path) -> None:
    apt = FakeApt(known=KNOWN)
    kernel = UnpackKernel(package="linux-image-cloud-amd64", folder=tmp_path / "kernels", update=True)
    report = await apply(tmp_path, apt, kernel, InstallPackages(names=("runc",)))
    assert [what for what, _ in report.failed] == [kernel.describe()]
    assert report.done == ("installed runc",)
    assert apt.calls.count("update") == 1


async def test_the_modules_of_ubuntu_are_unpacked_with_its_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, tuple[str, ...]]] = []

    class Kernel:
        release = "6.8.0-49-generic"

    async def unpack(package: Path, folder: Path, *, extra: tuple[Path, ...] = ()) -> Kernel:
        seen.append((package.name, tuple(path.name for path in extra)))
        return Kernel()

    monkeypatch.setattr(setup_apply, "unpack_kernel_package", unpack)
    apt = FakeApt(
        known={"linux-modules-6.8.0-49-generic": "1"},
        depends={"linux-image-virtual": ("linux-image-6.8.0-49-generic",)},
    )
    kernel = UnpackKernel(package="linux-image-virtual", folder=tmp_path / "kernels", update=False)
    report = await apply(tmp_path, apt, kernel)
    assert report.done == ("guest kernel 6.8.0-49-generic",)
    assert seen == [("linux-image-6.8.0-49-generic_1_amd64.deb", ("linux-modules-6.8.0-49-generic_1_amd64.deb",))]
    assert "update" not in apt.calls


@pytest.mark.parametrize("required", [True, False])
async def test_only_a_firecracker_that_was_asked_for_can_fail(tmp_path: Path, required: bool) -> None:
    release = FakeFirecracker(tmp_path / "bin/firecracker", error=StableError("no such site"))
    action = InstallFirecracker(version="v1.15.1", required=required)
    report = await apply(tmp_path, FakeApt(), action, firecracker=release)
    assert bool(report.failed) == required
    assert not release.binary.exists()


async def test_firecracker_is_installed_from_what_was_fetched(tmp_path: Path) -> None:
    release = FakeFirecracker(tmp_path / "bin/firecracker")
    report = await apply(tmp_path, FakeApt(), InstallFirecracker(version="v1.15.1", required=True), firecracker=release)
    assert report.done == (f"Firecracker at {release.binary}",)
