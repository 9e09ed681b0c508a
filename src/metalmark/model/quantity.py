"""Amounts of bytes and time as people write them and as Metalmark shows them."""

from __future__ import annotations

import re

from metalmark.model.errors import InputError

_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_BYTE_UNITS = {
    "b": 1,
    "k": 1024, "kb": 1000, "kib": 1024,
    "m": 1024**2, "mb": 1000**2, "mib": 1024**2,
    "g": 1024**3, "gb": 1000**3, "gib": 1024**3,
    "t": 1024**4, "tb": 1000**4, "tib": 1024**4,
}  # fmt: skip
_SECOND_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
KIB = 1024
MIB = 1024**2
GIB = 1024**3


def parse_bytes(text: str, *, field: str, bare_unit: int = 1) -> int:
    """Read an amount of bytes: ``512M``, ``1GiB``, ``1.5g``; single letters and …iB count in 1024, …B in 1000.

    Args:
        text: What the user wrote.
        field: The flag it came from, for the error.
        bare_unit: Bytes that a number without a suffix counts (``MIB`` for ``--memory``).

    Raises:
        InputError: Not a number with a known suffix.
    """
    number, unit = _split(text, field, "an amount of bytes", "512M, 1GiB or a bare number")
    factor = bare_unit if not unit else _BYTE_UNITS.get(unit.lower())
    if factor is None:
        raise InputError(field, text, f"{unit!r} is not a unit of bytes", hint="use K, M, G, T, KiB … or kB …")
    return round(number * factor)


def parse_seconds(text: str, *, field: str) -> float:
    """Read a duration: ``300``, ``90s``, ``5m``, ``1.5h``, ``250ms``; a bare number counts seconds.

    Raises:
        InputError: Not a number with a known suffix.
    """
    number, unit = _split(text, field, "a duration", "300, 90s, 5m or 1h")
    factor = 1.0 if not unit else _SECOND_UNITS.get(unit)
    if factor is None:
        raise InputError(field, text, f"{unit!r} is not a unit of time", hint="use ms, s, m, h or d")
    return number * factor


def _split(text: str, field: str, noun: str, examples: str) -> tuple[float, str]:
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        raise InputError(field, text, f"this is not {noun}", hint=f"write {examples}")
    return float(match[1]), match[2]


def format_bytes(size_bytes: float) -> str:
    """Return a size in binary units with three significant digits: ``1.50 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size_bytes) < 1024:
            return f"{size_bytes:.0f} B" if unit == "B" else f"{size_bytes:.3g} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.3g} TiB"


def format_seconds(seconds: float) -> str:
    """Return a duration with three significant digits in ns, µs, ms or s, and minutes from 120 s on."""
    if seconds >= 120:
        minutes, rest = divmod(seconds, 60)
        return f"{minutes:.0f} min {rest:.0f} s"
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns" if seconds else "0 s"
