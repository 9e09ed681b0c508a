"""When a lease of the registry is renewed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from metalmark.server.config import RegistrySection
from metalmark.server.registry_lease import lease_of, wants_renewal

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(("age_s", "expected"), [(-10, False), (0, False), (249, False), (250, True), (5000, True)])
def test_a_lease_is_renewed_after_a_quarter_of_it(age_s: int, expected: bool) -> None:
    rules = RegistrySection(lease_s=1000)
    assert lease_of(rules) == timedelta(seconds=1000)
    assert wants_renewal(rules, NOW - timedelta(seconds=age_s), NOW) is expected
