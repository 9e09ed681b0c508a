"""A stand-in of the public runner: what it says, in its order, with its patience; no job is run.

It reads as that program does: one message after each heartbeat, stale acknowledgements skipped, a terminal message sent
again until it is acknowledged, over a new connection when the old one broke.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from metalmark.testing.raw_channel import Dropped, RawChannel
from metalmark.wire import JobMessage, read_server_message

VERSION = "0.6.12"
_RESENDS = 5


@dataclass
class PublicRunner:
    """One runner.

    Args:
        url: The server's.
        runner: Its UUID or slug.
        key: Its key.
        poll_timeout_s: How long it waits for a job.
        ack_within_s: Its patience with the answer to a result.
    """

    url: str
    runner: object
    key: str
    poll_timeout_s: int = 55
    ack_within_s: float = 5.0
    channel: RawChannel | None = field(default=None, init=False)
    undelivered: dict[str, Any] | None = field(default=None, init=False)

    def connect(self) -> RawChannel:
        """Open the channel; a result that was not acknowledged goes first."""
        headers = {"Authorization": f"Bearer {self.key}"}
        self.channel = RawChannel(self.url, f"/v0/runners/{self.runner}/channel", headers)
        if self.undelivered is not None:
            self._deliver(self.undelivered)
        return self.channel

    @property
    def _open(self) -> RawChannel:
        return self.channel or self.connect()

    def disconnect(self) -> None:
        """Lose the connection without a word."""
        if self.channel is not None:
            self.channel.cut()
            self.channel = None

    def ready(self) -> dict[str, Any]:
        """Ask for a job, and return the answer: ``job``, ``no_job`` or ``update``."""
        said = {"os": "linux", "arch": "x86_64", "version": VERSION}
        self._open.say(event="ready", poll_timeout=self.poll_timeout_s, runner=said)
        answer = self._open.hear(within_s=self.poll_timeout_s + 30)
        if answer["event"] == "job":
            job = read_server_message(json.dumps(answer))
            assert isinstance(job, JobMessage)
        return answer

    def take(self) -> dict[str, Any]:
        """Ask until there is a job, say that it runs, and return it."""
        while (answer := self.ready())["event"] == "no_job":
            pass
        assert answer["event"] == "job", answer
        self.running()
        return answer

    def running(self) -> dict[str, Any]:
        """Say that the job runs, and return the answer."""
        self._open.say(event="running")
        return self._open.hear()

    def heartbeat(self) -> dict[str, Any]:
        """Give a sign of life, and return the answer: ``ack`` or ``cancel``."""
        self._open.say(event="heartbeat")
        return self._open.hear()

    def complete(self, job: str, results: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
        """Deliver results; return the answer, or None when it gave up."""
        return self._deliver({"event": "completed", "job": job, "results": list(results)})

    def fail(self, job: str, results: Sequence[Mapping[str, Any]], error: str) -> dict[str, Any] | None:
        """Deliver a failure; return the answer, or None when it gave up."""
        return self._deliver({"event": "failed", "job": job, "results": list(results), "error": error})

    def give_up(self, job: str) -> dict[str, Any] | None:
        """Say that the job was stopped; return the answer, or None when it gave up on that too."""
        return self._deliver({"event": "canceled", "job": job})

    def _deliver(self, message: dict[str, Any]) -> dict[str, Any] | None:
        self.undelivered = message
        for attempt in range(1 + _RESENDS):
            answer = self._try(lambda: self._delivered(message, any_ack=attempt > 0))  # noqa: B023  # called at once
            if answer is not None:
                self.undelivered = None
                return answer
        self.undelivered = None
        return None

    def _delivered(self, message: dict[str, Any], *, any_ack: bool) -> dict[str, Any]:
        if self.channel is None:
            self.channel = RawChannel(
                self.url, f"/v0/runners/{self.runner}/channel", {"Authorization": f"Bearer {self.key}"}
            )
        self.channel.say(message)
        while True:
            answer = self.channel.hear(within_s=self.ack_within_s)
            if answer["event"] == "ack" and (any_ack or answer.get("job") == message["job"]):
                return answer
            if answer["event"] == "cancel":
                raise Dropped

    def _try(self, deliver: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
        try:
            return deliver()
        except TimeoutError:
            return None
        except (Dropped, OSError, AssertionError):
            self.disconnect()
            return None
