from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalmark.model import InputError, Platform

AMD64 = Platform("linux", "amd64")
ARM64 = Platform("linux", "arm64", "v8")


@pytest.mark.parametrize(
    ("text", "platform"),
    [
        ("linux/amd64", AMD64),
        ("amd64", AMD64),
        ("x86_64", AMD64),
        ("Linux/AMD64", AMD64),
        ("linux/arm64", ARM64),
        ("linux/arm64/v8", ARM64),
        ("aarch64", ARM64),
        ("linux/arm/v6", Platform("linux", "arm", "v6")),
        ("armv7l", Platform("linux", "arm", "v7")),
        ("i686", Platform("linux", "386")),
        ("windows/amd64", Platform("windows", "amd64")),
    ],
)
def test_platforms_as_people_and_uname_write_them(text: str, platform: Platform) -> None:
    assert Platform.parse(text) == platform


@pytest.mark.parametrize(
    "text", ["", "/", "linux/", "/amd64", "linux", "a/b/c/d", "linux/am d64", "linux/amd64\n", "lınux/x"]
)
def test_what_is_no_platform_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--platform"):
        Platform.parse(text)


@given(st.text(alphabet="abcl/inux64_.-arm8v ", max_size=24))
def test_a_platform_read_back_is_the_same(text: str) -> None:
    try:
        platform = Platform.parse(text)
    except InputError:
        return
    assert Platform.parse(str(platform)) == platform
    assert platform.runs(platform)


def test_a_missing_variant_means_the_default_one() -> None:
    assert ARM64.runs(Platform("linux", "arm64"))
    assert Platform("linux", "arm").runs(Platform("linux", "arm", "v7"))
    assert not Platform("linux", "arm").runs(Platform("linux", "arm", "v6"))


def test_another_system_or_architecture_does_not_run() -> None:
    assert not AMD64.runs(ARM64)
    assert not AMD64.runs(Platform("windows", "amd64"))


def test_of_a_machine() -> None:
    assert Platform.of_machine("x86_64") == AMD64
    assert Platform.of_machine("aarch64") == ARM64
    assert Platform.of_machine("loongarch64") == Platform("linux", "loongarch64")
