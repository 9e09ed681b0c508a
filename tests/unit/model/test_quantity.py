from __future__ import annotations

import math
import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalmark.model import MIB, InputError, format_bytes, format_seconds, parse_bytes, parse_seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("1k", 1024),
        ("1K", 1024),
        ("1kB", 1000),
        ("1 KiB", 1024),
        ("512M", 512 * 1024**2),
        ("1.5g", 3 * 512 * 1024**2),
        (" 2TB ", 2 * 10**12),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_bytes_as_people_write_them(text: str, size: int) -> None:
    assert parse_bytes(text, field="--disk") == size


def test_a_bare_number_counts_the_fields_unit() -> None:
    assert parse_bytes("512", field="--memory", bare_unit=MIB) == 512 * MIB
    assert parse_bytes("512b", field="--memory", bare_unit=MIB) == 512


@pytest.mark.parametrize(
    "text", ["", "M", "-1", "1 2", "1e9", "0x10", "1MM", "1 bit", "٣", "inf", "9" * 400, "1.M", "8E"]
)
def test_what_is_not_an_amount_names_the_field(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_bytes(text, field="--memory")
    assert caught.value.field == "--memory"
    assert caught.value.value == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("300", 300.0), ("250ms", 0.25), ("90s", 90.0), ("5m", 300.0), ("1.5h", 5400.0), ("1d", 86400.0)],
)
def test_durations_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_seconds(text, field="--timeout") == seconds


@pytest.mark.parametrize("text", ["", "s", "-5", "5 weeks", "nan", "9" * 400, "1M"])
def test_what_is_not_a_duration_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--timeout"):
        parse_seconds(text, field="--timeout")


@given(st.text())
def test_any_text_is_an_amount_or_refused(text: str) -> None:
    for parse in (parse_bytes, parse_seconds):
        try:
            value = parse(text, field="x")
        except InputError:
            continue
        assert value >= 0
        assert math.isfinite(value)


@given(st.integers(0, 2**63 - 1))
def test_every_byte_count_is_read_exactly(size: int) -> None:
    assert parse_bytes(str(size), field="x") == size


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.98 KiB"),
        (1023, "1.00 KiB"),
        (1536 * 1024, "1.50 MiB"),
        (1010 * 1024, "1010 KiB"),
        (1023 * 1024 + 1000, "1.00 MiB"),
        (5000 * 1024**4, "5000 TiB"),
    ],
)
def test_sizes_are_shown_without_exponents(size: int, text: str) -> None:
    assert format_bytes(size) == text


@given(st.integers(0, 2**63 - 1))
def test_a_shown_size_is_true_within_a_percent(size: int) -> None:
    number, unit = format_bytes(size).split()
    factor = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}[unit]
    assert abs(float(number) * factor - size) <= max(0.006 * size, 0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (1.5e-9, "1.50 ns"),
        (0.0123, "12.3 ms"),
        (0.9999, "1.00 s"),
        (0.00099996, "1.00 ms"),
        (119.4, "119 s"),
        (119.9, "2 min 0 s"),
        (179.9, "3 min 0 s"),
        (3725, "62 min 5 s"),
        (-0.25, "-250 ms"),
    ],
)
def test_durations_are_shown_without_exponents(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@given(st.floats(1e-9, 119, allow_nan=False))
def test_a_shown_duration_is_true_within_a_percent(seconds: float) -> None:
    match = re.fullmatch(r"([0-9.]+) (s|ms|µs|ns)", format_seconds(seconds))
    assert match is not None
    factor = {"s": Decimal(1), "ms": Decimal("1e-3"), "µs": Decimal("1e-6"), "ns": Decimal("1e-9")}[match[2]]
    assert abs(float(Decimal(match[1]) * factor) - seconds) <= 0.006 * seconds
