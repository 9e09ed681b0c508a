from __future__ import annotations

from pathlib import Path

from metalmark.runner.packages import KERNEL_PACKAGES, PACKAGES, packages_for

LIST = Path(__file__).parents[3] / "scripts/packages/run"


def test_the_list_of_the_scripts_is_the_same() -> None:
    lines = [" ".join((package.name, *package.architectures)) for package in PACKAGES]
    assert LIST.read_text(encoding="utf-8").splitlines() == lines


def test_names_are_sorted_and_explained() -> None:
    names = [package.name for package in PACKAGES]
    assert names == sorted(set(names))
    assert all(package.purpose for package in PACKAGES)


def test_each_architecture_has_one_emulator_and_a_kernel() -> None:
    for architecture in ("amd64", "arm64"):
        emulators = [package.name for package in packages_for(architecture) if package.name.startswith("qemu-system")]
        assert len(emulators) == 1
        assert all((family, architecture) in KERNEL_PACKAGES for family in ("debian", "ubuntu"))
