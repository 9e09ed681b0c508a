"""Identifiers of everything that is stored: version 7 UUIDs (RFC 9562), which sort by the time they were made."""

from __future__ import annotations

import secrets
import threading
import time
from uuid import UUID

_FRACTION_BITS = 12
_NS_PER_MS = 1_000_000
_VERSION = 7 << 76
_VARIANT = 2 << 62


class _Ticks:
    """Milliseconds since the epoch with a 12-bit fraction, in this process always more than before."""

    def __init__(self) -> None:
        self._last = 0
        self._lock = threading.Lock()

    def next(self) -> int:
        # Only the order of identifiers comes from this reading; nothing that is decided or stored as a time does.
        now_ns = time.time_ns()  # noqa: TID251 - see above; a clock argument would have to reach every insert for it
        milliseconds, rest_ns = divmod(now_ns, _NS_PER_MS)
        ticks = (milliseconds << _FRACTION_BITS) | (rest_ns << _FRACTION_BITS) // _NS_PER_MS
        with self._lock:
            self._last = max(self._last + 1, ticks)
            return self._last


_ticks = _Ticks()


def new_id() -> UUID:
    """A new version 7 UUID.

    Within one process each is greater than the one before, also when the clock is set back. 62 bits are random, from
    the system's generator; still, an identifier is a name and not a secret.
    """
    milliseconds, fraction = divmod(_ticks.next(), 1 << _FRACTION_BITS)
    return UUID(int=(milliseconds << 80) | _VERSION | (fraction << 64) | _VARIANT | secrets.randbits(62))
