"""What runners can do against what specs ask for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from metalmark.model import Capabilities, Demand, public_runner, sandboxes_for, shortcomings

DEMAND = Demand(
    os="linux",
    architecture="x86_64",
    sandbox="firecracker",
    vcpus=2,
    memory_bytes=2**30,
    disk_bytes=2**33,
    network=True,
)
ABLE = Capabilities(
    os="linux",
    architecture="x86_64",
    sandboxes=frozenset({"firecracker", "container"}),
    vcpus=2,
    memory_bytes=2**30,
    disk_bytes=2**33,
    network=True,
)


def test_a_runner_that_just_suffices_lacks_nothing() -> None:
    assert shortcomings(ABLE, DEMAND) == ()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"os": "macos"}, "operating system"),
        ({"architecture": "aarch64"}, "architecture"),
        ({"sandboxes": frozenset({"qemu", "container"})}, "firecracker"),
        ({"vcpus": 1}, "vCPUs"),
        ({"memory_bytes": 2**30 - 1}, "memory"),
        ({"disk_bytes": 2**33 - 1}, "disk"),
        ({"network": False}, "network"),
    ],
)
def test_each_shortcoming_is_named_alone(changes: dict[str, object], word: str) -> None:
    (found,) = shortcomings(replace(ABLE, **changes), DEMAND)  # type: ignore[arg-type]
    assert word in found


@pytest.mark.parametrize(
    ("sandbox", "fits"), [("firecracker", True), ("qemu", True), ("container", False), ("", False)]
)
def test_a_microvm_is_either_of_two(sandbox: str, fits: bool) -> None:
    runner = replace(ABLE, sandboxes=frozenset({sandbox}))
    assert (shortcomings(runner, replace(DEMAND, sandbox="microvm")) == ()) is fits


def test_no_sandbox_has_to_be_allowed() -> None:
    demand = replace(DEMAND, sandbox=None)
    assert shortcomings(ABLE, demand) != ()
    assert shortcomings(replace(ABLE, sandboxes=frozenset({""})), demand) == ()


@pytest.mark.parametrize(
    ("sandbox", "offered"),
    [("firecracker", True), (None, True), ("qemu", False), ("container", False), ("microvm", False)],
)
def test_public_runners_are_offered_two_sandboxes(sandbox: str | None, offered: bool) -> None:
    assert (shortcomings(public_runner(), replace(DEMAND, sandbox=sandbox)) == ()) is offered


def test_a_public_runner_is_held_to_the_platform_that_it_names() -> None:
    assert shortcomings(public_runner(os="linux", architecture="x86_64"), DEMAND) == ()
    assert len(shortcomings(public_runner(os="macos", architecture="aarch64"), DEMAND)) == 2


def test_sandboxes_that_serve_a_spec() -> None:
    assert sandboxes_for(None) == {""}
    assert sandboxes_for("container") == {"container"}
