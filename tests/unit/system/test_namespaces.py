from __future__ import annotations

from pathlib import Path

from metalmark.system import has_privilege


def test_privilege_is_one_bit_of_the_effective_set(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    for mask, expected in (("0000000000200000", True), ("000001ffffdfffff", False), ("000001ffffffffff", True)):
        (tmp_path / "self/status").write_text(f"Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t{mask}\n")
        assert has_privilege(tmp_path) is expected
