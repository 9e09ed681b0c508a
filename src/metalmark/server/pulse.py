"""The pulse of a server process: whether it ran all the while, or was stopped, as by SIGSTOP or a paused machine.

What runners said to a stopped process waits in its sockets. Nobody may be taken for silent before that was heard.
"""

from __future__ import annotations

import anyio
from anyio.abc import TaskStatus

from metalmark.system import Clock

_BEAT_S = 1.0
_LATE_S = 1.5
_LISTEN_S = 2.0


class Pulse:
    """Beats once a second, so that a stop shows at once to whoever asks, whatever else goes on.

    Args:
        clock: Where it reads the time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._beaten_s = clock.monotonic_s()
        self._listens_until_s = self._beaten_s

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Beat until canceled."""
        self._beaten_s = self._clock.monotonic_s()
        task_status.started()
        while True:
            await self._clock.sleep_s(_BEAT_S)
            now_s = self._clock.monotonic_s()
            if self._was_stopped(now_s):
                self._listens_until_s = now_s + _LISTEN_S
            self._beaten_s = now_s

    def is_deaf(self) -> bool:
        """Return whether the process was stopped and may not have heard yet what was said meanwhile."""
        now_s = self._clock.monotonic_s()
        return self._was_stopped(now_s) or now_s < self._listens_until_s

    async def hear(self) -> None:
        """Wait until the process has heard what was said while it was stopped."""
        while self.is_deaf():
            await self._clock.sleep_s(max(_BEAT_S / 10, self._listens_until_s - self._clock.monotonic_s()))

    def _was_stopped(self, now_s: float) -> bool:
        return now_s - self._beaten_s > _BEAT_S + _LATE_S
