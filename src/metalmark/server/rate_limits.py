"""How much callers may do in a minute."""

from __future__ import annotations

from collections import OrderedDict
from enum import StrEnum

from metalmark.model import TooManyRequests
from metalmark.server.config import LimitsSection
from metalmark.system import Clock

_MINUTE_S = 60.0
_MAX_CALLERS = 65_536


class Limited(StrEnum):
    """What is counted; the names are those of the configuration's section ``limits``."""

    ADDRESS_REQUESTS = "address_requests"
    USER_REQUESTS = "user_requests"
    REGISTRY_REQUESTS = "registry_requests"
    SIGN_IN_ATTEMPTS = "sign_in_attempts"
    MAILS = "mails"
    RUNS = "runs"
    RUNNER_CONNECTIONS = "runner_connections"


_WORDS = {
    Limited.ADDRESS_REQUESTS: "requests without a credential",
    Limited.USER_REQUESTS: "requests",
    Limited.REGISTRY_REQUESTS: "requests to the registry",
    Limited.SIGN_IN_ATTEMPTS: "attempts to sign in",
    Limited.MAILS: "mails to this address",
    Limited.RUNS: "runs",
    Limited.RUNNER_CONNECTIONS: "connections of this runner",
}


class RateLimits:
    """A bucket for every caller and thing: full at first with a minute's worth, and refilled steadily.

    Each process of a server counts for itself. The callers longest unseen are forgotten when there are very many.

    Args:
        limits: A minute's worth of each thing; 0 for no limit.
        clock: Where time is read.
    """

    def __init__(self, limits: LimitsSection, clock: Clock) -> None:
        self._clock = clock
        self._per_minute: dict[Limited, int] = {thing: getattr(limits, thing.value) for thing in Limited}
        self._buckets: OrderedDict[tuple[Limited, str], tuple[float, float]] = OrderedDict()

    def spend(self, thing: Limited, caller: str) -> None:
        """Count one of a thing.

        Args:
            thing: What the caller does.
            caller: Who: an address group, a user's or key's identifier, a recipient.

        Raises:
            TooManyRequests: The bucket is empty; nothing was counted.
        """
        capacity = self._per_minute[thing]
        if not capacity:
            return
        now = self._clock.monotonic_s()
        level, since = self._buckets.pop((thing, caller), (float(capacity), now))
        level = min(float(capacity), level + (now - since) * capacity / _MINUTE_S)
        enough = level >= 1
        self._buckets[thing, caller] = (level - 1 if enough else level, now)
        if len(self._buckets) > _MAX_CALLERS:
            self._buckets.popitem(last=False)
        if not enough:
            raise TooManyRequests(_WORDS[thing], retry_after_s=(1 - level) * _MINUTE_S / capacity)
