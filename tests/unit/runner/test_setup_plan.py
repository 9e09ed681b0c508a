from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.unit.runner.examinations import DEBIAN

from metalmark.model import InputError, StableError
from metalmark.runner.distribution import Distribution
from metalmark.runner.packages import packages_for
from metalmark.runner.setup_plan import (
    InstallFirecracker,
    InstallPackages,
    JoinGroup,
    SetupFacts,
    UnpackKernel,
    Wishes,
    make_plan,
)

UBUNTU = Distribution(name="ubuntu", like=("debian",), version="24.04", codename="noble", title="Ubuntu 24.04 LTS")
KERNELS = Path("/var/lib/metalmark/kernels")
BUNDLE = Path("/media/bundle")


def facts(**changes: Any) -> SetupFacts:
    """A bare Debian, as root who came with sudo."""
    bare = SetupFacts(
        distribution=DEBIAN,
        architecture="amd64",
        uid=0,
        installed=frozenset(("util-linux",)),
        kernel_known=True,
        kernels=(),
        kernels_folder=KERNELS,
        kvm_works=False,
        kvm_group="kvm",
        group_user="ada",
        in_group=False,
        firecracker=None,
        firecracker_version="v1.15.1",
    )
    return replace(bare, **changes)


def complete(**changes: Any) -> SetupFacts:
    everything = frozenset(package.name for package in packages_for("amd64"))
    return facts(
        installed=everything, kernels=("6.1.0-56-cloud-amd64",), in_group=True, firecracker="/x/firecracker", **changes
    )


def test_a_bare_debian_as_root() -> None:
    plan = make_plan(facts(), Wishes())
    packages, kernel, group = plan.actions
    assert isinstance(packages, InstallPackages)
    assert "qemu-system-x86" in packages.names
    assert "qemu-system-arm" not in packages.names
    assert "util-linux" not in packages.names
    assert kernel == UnpackKernel(package="linux-image-cloud-amd64", folder=KERNELS, update=True)
    assert group == JoinGroup(user="ada", group="kvm")
    assert plan.by_hand == ()
    assert any("firecracker" in line for line in plan.left_out)


@pytest.mark.parametrize(
    ("distribution", "architecture", "kernel", "emulator"),
    [
        (DEBIAN, "amd64", "linux-image-cloud-amd64", "qemu-system-x86"),
        (DEBIAN, "arm64", "linux-image-cloud-arm64", "qemu-system-arm"),
        (UBUNTU, "amd64", "linux-image-virtual", "qemu-system-x86"),
        (UBUNTU, "arm64", "linux-image-virtual", "qemu-system-arm"),
        (Distribution(name="linuxmint", like=("ubuntu", "debian")), "amd64", "linux-image-virtual", "qemu-system-x86"),
    ],
)
def test_names_of_each_distribution(distribution: Distribution, architecture: str, kernel: str, emulator: str) -> None:
    plan = make_plan(facts(distribution=distribution, architecture=architecture), Wishes())
    packages = plan.actions[0]
    assert isinstance(packages, InstallPackages)
    assert emulator in packages.names
    assert [action.package for action in plan.actions if isinstance(action, UnpackKernel)] == [kernel]


@pytest.mark.parametrize(
    ("distribution", "architecture"), [(Distribution(name="fedora", title="Fedora 41"), "amd64"), (DEBIAN, "riscv64")]
)
def test_other_systems_are_told_what_to_install(distribution: Distribution, architecture: str) -> None:
    with pytest.raises(StableError, match="not set up automatically") as caught:
        make_plan(facts(distribution=distribution, architecture=architecture), Wishes())
    assert "squashfs-tools" in caught.value.hint


def test_what_is_complete_has_nothing_to_do() -> None:
    plan = make_plan(complete(), Wishes())
    assert plan.actions == ()
    assert plan.by_hand == ()
    assert len(plan.present) == 4


def test_without_root_the_kernel_is_done_and_the_rest_is_printed() -> None:
    plan = make_plan(facts(uid=1000), Wishes())
    assert plan.actions == (UnpackKernel(package="linux-image-cloud-amd64", folder=KERNELS, update=False),)
    install, join = plan.by_hand
    assert install.startswith("sudo apt-get install --no-install-recommends ")
    assert "squashfs-tools" in install
    assert join == "sudo usermod -aG kvm ada"
    assert plan.incomplete


def test_the_group_alone_does_not_make_a_plan_incomplete() -> None:
    plan = make_plan(replace(complete(uid=1000), in_group=False), Wishes())
    assert plan.by_hand == ("sudo usermod -aG kvm ada",)
    assert not plan.incomplete


def test_without_root_and_lists_the_lists_come_first() -> None:
    plan = make_plan(facts(uid=1000, kernel_known=False), Wishes())
    assert plan.actions == ()
    assert any(line.startswith("sudo apt-get update") for line in plan.by_hand)


def test_root_itself_needs_no_group() -> None:
    plan = make_plan(facts(group_user=None), Wishes())
    assert not any(isinstance(action, JoinGroup) for action in plan.actions)


def test_a_machine_without_the_group_is_told() -> None:
    plan = make_plan(facts(kvm_group=None), Wishes())
    assert any(line.startswith("kvm-group") for line in plan.left_out)


@pytest.mark.parametrize(
    ("kvm_works", "wanted", "expected"),
    [
        (False, frozenset[str](), None),
        (True, frozenset[str](), InstallFirecracker(version="v1.15.1", required=False)),
        (False, frozenset(("firecracker",)), InstallFirecracker(version="v1.15.1", required=True)),
    ],
)
def test_firecracker_comes_where_it_could_run_or_on_request(
    kvm_works: bool, wanted: frozenset[str], expected: InstallFirecracker | None
) -> None:
    plan = make_plan(facts(kvm_works=kvm_works), Wishes(wanted=wanted))
    found = [action for action in plan.actions if isinstance(action, InstallFirecracker)]
    assert found == ([] if expected is None else [expected])


def test_the_kernel_is_fetched_again_on_request() -> None:
    plan = make_plan(complete(), Wishes(wanted=frozenset(("kernel",))))
    assert [type(action) for action in plan.actions] == [UnpackKernel]


def test_parts_can_be_left_out() -> None:
    plan = make_plan(facts(), Wishes(unwanted=frozenset(("packages", "kernel", "kvm-group", "firecracker"))))
    assert plan.actions == ()
    assert len(plan.left_out) == 4


@pytest.mark.parametrize(
    ("wishes", "field"),
    [
        (Wishes(wanted=frozenset(("docker",))), "--with"),
        (Wishes(unwanted=frozenset(("docker",))), "--without"),
        (Wishes(wanted=frozenset(("kernel",)), unwanted=frozenset(("kernel",))), "--without"),
        (Wishes(wanted=frozenset(("firecracker",)), bundle=BUNDLE), "--with"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused(wishes: Wishes, field: str) -> None:
    with pytest.raises(InputError) as caught:
        make_plan(facts(), wishes)
    assert caught.value.field == field


def test_everything_can_come_from_a_folder() -> None:
    wishes = Wishes(bundle=BUNDLE, bundle_has=frozenset(("packages", "kernel", "firecracker")))
    plan = make_plan(facts(kvm_works=True, kernel_known=False), wishes)
    assert [action.bundle for action in plan.actions if not isinstance(action, JoinGroup)] == [BUNDLE] * 3
    kernel = plan.actions[1]
    assert isinstance(kernel, UnpackKernel)
    assert not kernel.update
    assert str(BUNDLE) in kernel.describe()


def test_an_ordinary_user_is_sent_to_root_with_the_folder() -> None:
    plan = make_plan(facts(uid=1000), Wishes(bundle=BUNDLE, bundle_has=frozenset(("kernel",))))
    assert [type(action) for action in plan.actions] == [UnpackKernel]
    assert plan.by_hand[0].startswith("sudo metalmark host setup --from /media/bundle")
    elsewhere = replace(Wishes(bundle=BUNDLE), program="/home/ada/env/bin/metalmark")
    assert make_plan(facts(uid=1000), elsewhere).by_hand[0].startswith("sudo /home/ada/env/bin/metalmark host setup")


def test_a_folder_without_a_kernel_says_so() -> None:
    plan = make_plan(facts(), Wishes(bundle=BUNDLE))
    assert not any(isinstance(action, UnpackKernel) for action in plan.actions)
    assert any("holds none" in line for line in plan.left_out)


def test_the_plan_as_json_is_plain() -> None:
    shown = json.loads(json.dumps(make_plan(facts(), Wishes()).as_json()))
    assert shown["schema"] == 1
    assert len(shown["actions"]) == 3
    assert "not installed on this machine" in shown["actions"][1]
