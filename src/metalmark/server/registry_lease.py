"""The lease of what nobody names yet: a push comes from its leaves, and may take its time.

Whoever asks for a blob or manifest may be about to push what names it, and will not send it again; so asking renews.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from metalmark.server.config import RegistrySection

_OLD = 0.25
"""Part of a lease after which it is renewed: most reads write nothing."""


def lease_of(rules: RegistrySection) -> timedelta:
    """Return how long something is kept after it was pushed or asked for."""
    return timedelta(seconds=rules.lease_s)


def wants_renewal(rules: RegistrySection, touched: datetime, now: datetime) -> bool:
    """Whether a lease that was last renewed then is to be renewed now."""
    return now - touched >= lease_of(rules) * _OLD
