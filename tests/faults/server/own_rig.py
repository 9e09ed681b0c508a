"""One of our own runners, moved by hand: many jobs on one connection, each at another point of its life."""

from __future__ import annotations

import base64
import contextlib
import time
from dataclasses import dataclass, field
from typing import Any

from tests.faults.server.place import Place

from metalmark.testing.raw_channel import Dropped, HandshakeRefused, RawChannel

RESULTS = [{"exit_code": 0, "stdout": "{}"}]
CAPABLE = {"os": "linux", "architecture": "x86_64", "sandboxes": ["firecracker"]}
GONE = (Dropped, OSError, AssertionError)
"""What a connection does that is over: `RawChannel` calls a close frame no message."""
ENDS = {"complete", "fail", "give up", "fault", "hand in"}
"""Acts after which the runner has nothing more to say."""
CHUNK = [{"iteration": 0, "stream": "stdout", "data": base64.b64encode(b"live").decode()}]
MESSAGES: dict[str, dict[str, Any]] = {
    "phase": {"event": "phase", "phase": "pull"},
    "start": {"event": "running"},
    "output": {"event": "output", "offset": 0, "chunks": CHUNK},
    "attach": {"event": "attach"},
    "complete": {"event": "completed", "results": RESULTS},
    "fail": {"event": "failed", "error": "exit code 1", "results": RESULTS},
    "fault": {"event": "failed", "error": "no such image", "infrastructure": True},
    "give up": {"event": "canceled"},
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One job's life around the fault."""

    reach: str
    """State before the fault: ``pending``, ``claimed``, ``running``."""
    act: str
    """What the fault hits."""
    moment: str
    """``before``: not yet sent. ``during``: sent, its answer not awaited. ``after``: answered."""
    retry: bool = False
    """Whether the job may go back to the queue."""

    @property
    def name(self) -> str:
        return f"{self.act} of {self.reach}, {self.moment}{', may be tried again' if self.retry else ''}"


@dataclass(kw_only=True)
class Life:
    """A job of the rig's runner, as the runner knows it."""

    case: Case
    job: str
    lease: int = 0
    """0: not received."""
    promised: set[str] = field(default_factory=set)
    refused: str = ""
    """Why the server took the last message that it did not take."""
    kept: bool = True
    """Whether the server said after the fault that the lease is still the runner's."""

    @property
    def named(self) -> dict[str, Any]:
        return {"job": self.job, "lease": self.lease}

    @property
    def over(self) -> bool:
        return bool(self.promised & ENDS)


class Rig:
    """A runner with one connection.

    Args:
        place: The server.
        name: Of the runner and its spec.
        cases: Of its jobs, which are submitted.
        lives_on: Whether the runner comes back after the fault.
    """

    def __init__(self, place: Place, name: str, cases: list[Case], *, lives_on: bool) -> None:
        self.place = place
        self.lives_on = lives_on
        self.name = name
        self.runner, self.spec = place.runner(name)
        self.lives: list[Life] = []
        for case in cases:
            self.add(case)
        self._channel: RawChannel | None = None
        self._number = 0
        self._received = 0
        self._asked: dict[int, tuple[Life | None, str]] = {}
        self._answers: dict[int, dict[str, Any]] = {}
        self._beat_s = 0.0

    def add(self, case: Case, *, spec: str = "", **asked: object) -> Life:
        """Submit another job, of the runner's spec if no other is named."""
        job = self.place.submit(spec or self.spec, retry=case.retry, **asked)
        assert job is not None
        self.lives.append(Life(case=case, job=job))
        return self.lives[-1]

    def connect(self, *, seconds: float = 20) -> None:
        """Open the channel and say hello; the server says which leases are still held."""
        self.close()
        deadline = time.monotonic() + seconds
        path = f"/v0/runners/{self.runner['uuid']}/channel"
        headers = {"Authorization": f"Bearer {self.runner['key']}", "Sec-WebSocket-Protocol": "metalmark.1"}
        holding = [life for life in self.lives if life.lease and not life.over]
        named = [life.named for life in holding]
        hello = {"version": "1", "process": self.name, "boot": "b", "capabilities": CAPABLE, "holding": named}
        while True:
            try:
                self._channel = RawChannel(self.place.server.url, path, headers, timeout_s=10)
                self._received, self._asked, self._answers = 0, {}, {}
                welcome = self._answer(self._send(None, "hello", {"event": "hello", **hello}))
                break
            except (*GONE, HandshakeRefused):
                # As the server comes up, or its database.
                self.close()
                assert time.monotonic() < deadline, "no connection"
                time.sleep(0.2)
        for life in holding:
            life.kept = life.named in welcome["held"]

    def close(self) -> None:
        """End the connection as somebody who is gone: without a farewell."""
        if self._channel is not None:
            with contextlib.suppress(OSError):
                self._channel.cut()
            self._channel = None

    def take_up(self) -> None:
        """Come to the states before the fault."""
        self.connect()
        wanted = [life for life in self.lives if life.case.reach != "pending"]
        if not wanted:
            return
        self.want(len(wanted))
        while any(not life.lease for life in wanted):
            self.hear()
        self.all_take([life for life in wanted if life.case.reach == "running"], "start")

    def want(self, slots: int) -> int:
        """Ask for jobs, and return the number of the message."""
        return self._send(None, "ready", {"event": "ready", "slots": slots, "received": self._received})

    def all_take(self, lives: list[Life], act: str) -> None:
        """Tell something of many jobs, and wait until all of it was taken."""
        numbers = [(life, self.send(life, act)) for life in lives]
        for life, number in numbers:
            answer = self._answer(number)
            if answer["event"] != "ack":
                assert (answer["reason"], self.tell(life, act)) == ("busy", True), (answer, life.case.name)

    def send(self, life: Life, act: str, **fields: Any) -> int:
        """Send what an act says, without waiting for its answer; return its number."""
        if act == "heartbeat":
            return self._send(life, act, {"event": "heartbeat", "jobs": [life.named]})
        message = {"event": "completed"} if act == "hand in" else MESSAGES[act]
        return self._send(life, act, {**message, **life.named, **fields})

    def tell(self, life: Life, act: str, **fields: Any) -> bool:
        """Send what an act says until it is answered by yes or no; whether it was taken."""
        while True:
            answer = self._answer(self.send(life, act, **fields))
            if answer["event"] == "ack":
                return True
            life.refused = answer["reason"]
            if answer["reason"] != "busy":
                return False
            time.sleep(0.5)

    def beat(self, *, every_s: float = 0.0) -> None:
        """Keep every lease, and the connection, unless that was done just now."""
        if self._channel is None or time.monotonic() - self._beat_s < every_s:
            return
        self._beat_s = time.monotonic()
        named = [life.named for life in self.lives if life.lease and life.kept and not life.over]
        self._answer(self._send(None, "heartbeat", {"event": "heartbeat", "jobs": named}))

    def beat_unheard(self) -> None:
        """Send a sign of life that nobody may be there to answer."""
        named = [life.named for life in self.lives if life.lease and not life.over]
        with contextlib.suppress(*GONE):
            self._send(None, "heartbeat", {"event": "heartbeat", "jobs": named})

    def drain(self) -> None:
        """Hear what was answered before the connection broke, or until the server has no more to say."""
        with contextlib.suppress(*GONE):
            while True:
                self.hear(within_s=0.3)

    def hear(self, *, within_s: float = 10) -> None:
        """Hear one message, whatever it is about."""
        assert self._channel is not None
        heard = self._channel.hear(within_s=within_s)
        if heard["event"] == "job":
            self._received += 1
            life = next(life for life in self.lives if life.job == heard["job"])
            life.lease, life.kept = heard["lease"], True
            life.promised.add("claim")
        elif "re" in heard:
            life_or_none, act = self._asked.pop(heard["re"])
            self._answers[heard["re"]] = heard
            lost = life_or_none is not None and life_or_none.named in heard.get("lost", ())
            if life_or_none is not None and heard["event"] == "ack" and not lost:
                life_or_none.promised.add(act)

    def _send(self, life: Life | None, act: str, message: dict[str, Any]) -> int:
        assert self._channel is not None
        self._number += 1
        self._asked[self._number] = (life, act)
        self._channel.say(id=self._number, **message)
        return self._number

    def _answer(self, number: int) -> dict[str, Any]:
        while number not in self._answers:
            self.hear()
        return self._answers.pop(number)
