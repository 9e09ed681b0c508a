"""Version 7 UUIDs: their layout, and that they go up."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from metalmark.model import new_id
from metalmark.model.identifier import _Ticks


def test_an_identifier_has_version_variant_and_time() -> None:
    before_ms = time.time_ns() // 1_000_000
    made = new_id()
    after_ms = time.time_ns() // 1_000_000
    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    # Others may have been made before it in the same tick, which moves it on by parts of a millisecond.
    assert before_ms <= made.int >> 80 <= after_ms + 1


def test_identifiers_go_up_in_order_and_none_comes_twice() -> None:
    made = [new_id() for _ in range(10_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_threads_get_no_identifier_twice() -> None:
    with ThreadPoolExecutor(4) as pool:
        made = [uuid for part in pool.map(lambda _: [new_id() for _ in range(1_000)], range(4)) for uuid in part]
    assert len(set(made)) == len(made)


def test_a_clock_that_is_set_back_does_not_turn_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = _Ticks()
    monkeypatch.setattr(time, "time_ns", lambda: 2_000_000_000_000_000_000)
    later = ticks.next()
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000_000_000_000_000)
    assert ticks.next() > later
