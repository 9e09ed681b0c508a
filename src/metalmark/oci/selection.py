"""Which manifest of an index is for a platform."""

from __future__ import annotations

from collections.abc import Iterable

from metalmark.model import Platform, WrongPlatform

_ARM_VARIANTS = ("v8", "v7", "v6", "v5")
_AMD64_VARIANTS = ("v4", "v3", "v2", "")


def suitability(wanted: Platform, image: Platform) -> int | None:
    """How well an image for one platform serves another: 0 is exact, higher is an older variant, None not at all."""
    if wanted.runs(image):
        return 0
    if (wanted.os, wanted.architecture) != (image.os, image.architecture):
        return None
    if wanted.architecture == "amd64":
        return _distance(_AMD64_VARIANTS, _amd64(wanted.variant), _amd64(image.variant))
    if wanted.architecture == "arm":
        return _distance(_ARM_VARIANTS, wanted.variant or "v7", image.variant or "v7")
    return None


def _amd64(variant: str) -> str:
    return "" if variant == "v1" else variant


def _distance(newest_first: tuple[str, ...], wanted: str, offered: str) -> int | None:
    if wanted not in newest_first or offered not in newest_first:
        return None
    distance = newest_first.index(offered) - newest_first.index(wanted)
    return distance if distance >= 0 else None


def wrong_platform(reference: str, wanted: Platform, offered: Iterable[Platform]) -> WrongPlatform:
    """Return the error for an image that has nothing for a platform."""
    names = sorted({str(platform) for platform in offered if str(platform) and platform.os != "unknown"})
    return WrongPlatform(
        f"{reference} has no image for {wanted}",
        why=f"it is for {', '.join(names)}" if names else "it names no platform at all",
        hint=f"choose one with --platform {names[0]}" if names else "",
    )
