"""Sizes that no machine boots with, and deadlines on busy hosts."""

from __future__ import annotations

from pathlib import Path

import pytest

from metalmark.model import MIB, BoxTooSmall, InputError, Resources, RootfsMode
from metalmark.sandbox import BoxSpec
from metalmark.sandbox.microvm import LEAST_MEMORY_BYTES, check_size, load_factor


def spec(**resources: int) -> BoxSpec:
    return BoxSpec(
        name="b", root=Path("r"), rootfs=RootfsMode.OVERLAY, workspace=Path("w"), resources=Resources(**resources)
    )


def test_too_little_memory_names_the_least() -> None:
    with pytest.raises(BoxTooSmall) as found:
        check_size(spec(memory_bytes=32 * MIB))
    assert f"--memory {LEAST_MEMORY_BYTES // MIB}" in found.value.hint
    check_size(spec(memory_bytes=LEAST_MEMORY_BYTES))


@pytest.mark.parametrize("vcpus", [0, 256])
def test_vcpus_that_no_machine_has(vcpus: int) -> None:
    with pytest.raises(InputError, match="--vcpus"):
        check_size(spec(vcpus=vcpus))


def test_deadline_stretches_with_load_only() -> None:
    assert load_factor(0.5, 2) == 1.0
    assert load_factor(8.0, 2) == 4.0
