"""Amounts of bytes and time as people write them and as Metalmark shows them."""

from __future__ import annotations

import re
from decimal import Decimal

from metalmark.model.errors import InputError

_NUMBER = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)")
_MOST_BYTES = 2**63 - 1
"""What the operating system's file offsets can count."""
_MOST_SECONDS = 2**31 - 1
"""Timers take no more; it is 68 years."""
_BYTE_UNITS = {
    "b": 1,
    "k": 1024, "kb": 1000, "kib": 1024,
    "m": 1024**2, "mb": 1000**2, "mib": 1024**2,
    "g": 1024**3, "gb": 1000**3, "gib": 1024**3,
    "t": 1024**4, "tb": 1000**4, "tib": 1024**4,
}  # fmt: skip
_SECOND_UNITS = {
    unit: Decimal(seconds)
    for unit, seconds in {"ms": "0.001", "s": "1", "m": "60", "min": "60", "h": "3600", "d": "86400"}.items()
}
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
        InputError: Not a number with a known suffix, or more than 2⁶³ - 1 bytes.
    """
    number, unit = _split(text, field, "an amount of bytes", "512M, 1GiB or a bare number")
    factor = bare_unit if not unit else _BYTE_UNITS.get(unit.lower())
    if factor is None:
        raise InputError(field, text, f"{unit!r} is not a unit of bytes", hint="use K, M, G, T, KiB … or kB …")
    amount = number * factor
    if amount > _MOST_BYTES:
        raise InputError(field, text, "this is more than any file system or memory can hold")
    return round(amount)


def parse_seconds(text: str, *, field: str) -> float:
    """Read a duration: ``300``, ``90s``, ``5m``, ``1.5h``, ``250ms``; a bare number counts seconds.

    Raises:
        InputError: Not a number with a known suffix, or more than 2³¹ - 1 seconds.
    """
    number, unit = _split(text, field, "a duration", "300, 90s, 5m or 1h")
    factor = Decimal(1) if not unit else _SECOND_UNITS.get(unit)
    if factor is None:
        raise InputError(field, text, f"{unit!r} is not a unit of time", hint="use ms, s, m, h or d")
    seconds = number * factor
    if seconds > _MOST_SECONDS:
        raise InputError(field, text, "this is longer than any timer takes")
    return float(seconds)


def _split(text: str, field: str, noun: str, examples: str) -> tuple[Decimal, str]:
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        raise InputError(field, text, f"this is not {noun}", hint=f"write {examples}")
    # Decimal, because a float loses bytes from 2⁵³ on and turns many digits into infinity.
    return Decimal(match[1]), match[2]


def format_bytes(size_bytes: float) -> str:
    """Return a size in binary units with three significant digits: ``1.50 MiB``, ``1010 KiB``, ``12 B``."""
    if abs(size_bytes) < 999.5:
        return f"{size_bytes:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        size_bytes /= 1024
        if abs(size_bytes) < 1023.5:
            return f"{_three_digits(size_bytes)} {unit}"
    return f"{_three_digits(size_bytes / 1024)} TiB"


def format_seconds(seconds: float) -> str:
    """Return a duration with three significant digits in ns, µs, ms or s, and minutes from 120 s on."""
    if seconds < 0:
        return f"-{format_seconds(-seconds)}"
    if seconds >= 119.5:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest} s"
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        # From just under one, so that rounding never makes it 1000 of the smaller unit.
        if seconds >= 0.9995 * factor:
            return f"{_three_digits(seconds / factor)} {unit}"
    return f"{_three_digits(seconds * 1e9)} ns" if seconds else "0 s"


def _three_digits(value: float) -> str:
    size = abs(value)
    places = 2 if size < 9.995 else 1 if size < 99.95 else 0
    return f"{value:.{places}f}"
