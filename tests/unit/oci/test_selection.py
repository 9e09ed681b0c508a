from __future__ import annotations

import pytest

from metalmark.model import Platform
from metalmark.oci.selection import suitability, wrong_platform


@pytest.mark.parametrize(
    ("wanted", "image", "expected"),
    [
        ("linux/amd64", Platform("linux", "amd64"), 0),
        ("linux/amd64", Platform("linux", "amd64", "v1"), 0),
        ("linux/amd64", Platform("linux", "amd64", "v2"), None),
        ("linux/amd64/v3", Platform("linux", "amd64", "v3"), 0),
        ("linux/amd64/v3", Platform("linux", "amd64", "v2"), 1),
        ("linux/amd64/v3", Platform("linux", "amd64"), 2),
        ("linux/arm64", Platform("linux", "arm64"), 0),
        ("linux/arm64", Platform("linux", "arm64", "v8"), 0),
        ("linux/arm64", Platform("linux", "arm", "v7"), None),
        ("linux/arm/v7", Platform("linux", "arm", "v6"), 1),
        ("linux/arm/v6", Platform("linux", "arm", "v7"), None),
        ("linux/arm/v7", Platform("linux", "arm"), 0),
        ("linux/amd64", Platform("windows", "amd64"), None),
        ("linux/riscv64", Platform("linux", "riscv64"), 0),
        ("linux/amd64", Platform("unknown", "unknown"), None),
    ],
)
def test_older_variants_serve_and_newer_ones_do_not(wanted: str, image: Platform, expected: int | None) -> None:
    assert suitability(Platform.parse(wanted), image) == expected


def test_the_error_lists_what_there_is_and_leaves_attestations_out() -> None:
    error = wrong_platform(
        "app", Platform.parse("linux/amd64"), [Platform("linux", "arm64", "v8"), Platform("unknown", "unknown")]
    )
    assert "linux/arm64/v8" in error.why
    assert "unknown" not in error.why
    assert error.hint == "choose one with --platform linux/arm64/v8"
