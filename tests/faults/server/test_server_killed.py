"""kill -9 and SIGSTOP of the server and of PostgreSQL, before, during and after each transition of a job.

One fault hits many jobs at once, each at another point of its life and each with a runner of its own. Afterwards some
runners are gone and some deliver what they have, as the public runner does. What was acknowledged has to hold, and
every job has to end, once, within the lease and five seconds.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from tests.faults.server.place import FAULTS, Place, serving_place
from tests.integration.server.job_ledger import Change
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import ClientConnection, connect

LEASE_S = 5
SETTLED_S = LEASE_S + 5
RESULTS = [{"exit_code": 0, "stdout": "{}"}]
LASTS_S = {
    "kill the server": 0.0,
    "stop the server": LEASE_S + 1.0,
    "kill the database": 0.0,
    "stop the database": LEASE_S + 1.0,
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One job's life around the fault."""

    reach: str
    """State before the fault: ``new`` (not submitted), ``pending``, ``claimed``, ``running``."""
    act: str
    """The transition that the fault hits: ``submit``, ``claim``, ``start``, ``heartbeat``, ``complete``, ``fail``,
    ``cancel``, ``give up``."""
    moment: str
    """``before``: not yet sent. ``during``: sent, its answer not awaited. ``after``: answered."""
    delivers: bool
    """Whether the runner lives on and delivers its results."""

    @property
    def retry(self) -> bool:
        """Whether the job may go back to the queue. One whose benchmark has not begun does when its runner is lost."""
        return (self.reach, self.act) == ("claimed", "heartbeat")

    @property
    def name(self) -> str:
        return f"{self.act} of {self.reach}, {self.moment}, {'delivers' if self.delivers else 'dead'}"


TRANSITIONS = [
    ("new", "submit"),
    ("pending", "claim"),
    ("claimed", "heartbeat"),
    ("claimed", "start"),
    ("claimed", "complete"),
    ("claimed", "fail"),
    ("claimed", "give up"),
    ("claimed", "cancel"),
    ("running", "heartbeat"),
    ("running", "complete"),
    ("running", "fail"),
    ("running", "give up"),
    ("pending", "cancel"),
    ("running", "cancel"),
]


def cases(*, soak: bool) -> list[Case]:
    """Every transition while and after it is under way, and every state before; all of all when there is time."""
    dead = [
        Case(reach=reach, act=act, moment=moment, delivers=False)
        for reach, act in TRANSITIONS
        for moment in ("before", "during", "after")
        if moment != "before" or soak or reach in {"new", "pending"} or act == "heartbeat"
    ]
    alive = [
        Case(reach=reach, act=act, moment=moment, delivers=True)
        for reach, act in TRANSITIONS
        if reach in {"claimed", "running"} and act != "cancel"
        for moment in (("before", "during", "after") if soak else ("during",))
    ]
    return [*dead, *alive]


def allowed(case: Case, promised: set[str]) -> set[str]:
    """The ends that are right, by what the server had acknowledged."""
    if "complete" in promised:
        return {"processed"}
    if "cancel" in promised:
        return {"canceled"}
    if "give up" in promised:
        return {"canceled"}
    if "fail" in promised:
        return {"failed"}
    unknown = {
        "fail": {"failed"},
        "give up": {"failed", "canceled"},
        "complete": {"failed", "processed"},
        "cancel": {"failed", "canceled", "pending"},
        "submit": {"pending", "none"},
        "claim": {"pending", "failed"},
        "start": {"failed"},
        "heartbeat": {"failed"},
    }[case.act]
    lost = {"pending"} if case.retry else unknown
    return lost | ({"processed"} if case.delivers else set())


@dataclass(kw_only=True)
class Hand:
    """A runner that a test moves by hand, and its one job."""

    case: Case
    place: Place
    runner: dict[str, Any]
    spec: str
    job: str | None = None
    promised: set[str] = field(default_factory=set)
    heard: float = 0.0
    """When the server last heard of it."""

    channel: ClientConnection | None = None
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def open(self) -> None:
        url = f"ws://127.0.0.1:{self.place.server.port}/v0/runners/{self.runner['uuid']}/channel"
        headers = {"Authorization": f"Bearer {self.runner['key']}"}
        opening = connect(url, additional_headers=headers, compression=None, open_timeout=10, close_timeout=1)
        self.channel = self.stack.enter_context(opening)

    def close(self) -> None:
        if self.channel is not None:
            # The socket, not a farewell: a runner that is gone says nothing.
            with contextlib.suppress(OSError):
                self.channel.socket.shutdown(2)
            with contextlib.suppress(ConnectionClosed, OSError):
                self.stack.close()
            self.channel = None

    def send(self, event: str, **fields: object) -> None:
        assert self.channel is not None
        self.channel.send(json.dumps({"event": event, **fields}))

    def answer(self, *, seconds: float = 10) -> dict[str, Any]:
        assert self.channel is not None
        received: dict[str, Any] = json.loads(self.channel.recv(timeout=seconds))
        return received

    def submit(self) -> None:
        self.job = self.place.submit(self.spec, retry=self.case.retry)
        if self.job is not None:
            self.promised.add("submit")

    def cancel(self) -> None:
        if self.place.cancel(self.job):
            self.promised.add("cancel")

    def claim(self) -> None:
        self.send("ready", poll_timeout=60)
        answer = self.answer()
        assert answer["event"] == "job", answer
        assert answer["uuid"] == self.job, answer

    def told(self, event: str, **fields: object) -> None:
        self.send(event, **fields)
        answer = self.answer()
        assert answer["event"] == "ack", answer

    def take_up(self) -> None:
        """Come to the state before the fault."""
        if self.case.reach != "pending" or self.case.act != "cancel":
            self.open()
        if self.case.reach in {"claimed", "running"}:
            self.claim()
        if self.case.reach == "running":
            self.told("running")
        self.heard = time.monotonic()

    def beat(self) -> bool:
        """Keep the lease, or the channel that waits for one; whether there will be an answer."""
        if self.channel is None or self.promised - {"submit"} or time.monotonic() - self.heard < LEASE_S / 4:
            return False
        self.heard = time.monotonic()
        if self.case.reach not in {"claimed", "running"}:
            self.channel.ping()
            return False
        self.send("heartbeat")
        return True

    def act(self) -> None:
        """Do the transition and await its answer; what was answered is a promise."""
        terminal: Mapping[str, tuple[str, dict[str, object]]] = {
            "complete": ("completed", {"job": self.job, "results": RESULTS}),
            "fail": ("failed", {"job": self.job, "results": RESULTS, "error": "exit code 1"}),
            "give up": ("canceled", {"job": self.job}),
            "start": ("running", {}),
            "heartbeat": ("heartbeat", {}),
        }
        match self.case.act:
            case "submit":
                self.submit()
            case "cancel":
                self.cancel()
            case "claim":
                self.claim()
                self.promised.add("claim")
            case act:
                event, fields = terminal[act]
                self.told(event, **fields)
                self.promised.add(act)

    def deliver(self) -> None:
        """Bring the terminal message as the public runner does: again and again, on a new connection where need be."""
        event = {"fail": "failed", "give up": "canceled"}.get(self.case.act, "completed")
        fields: dict[str, object] = {"job": self.job}
        if event != "canceled":
            fields["results"] = RESULTS
        if event == "failed":
            fields["error"] = "exit code 1"
        for _ in range(6):
            try:
                self.close()
                self.open()
                self.send(event, **fields)
                if self.answer(seconds=5)["event"] == "ack":
                    return
            except (ConnectionClosed, InvalidHandshake, TimeoutError, OSError):
                time.sleep(0.3)


def hands_for(place: Place, lives: list[Case], prefix: str) -> list[Hand]:
    found = []
    for number, case in enumerate(lives):
        runner, spec = place.runner(f"{prefix} {number}")
        found.append(Hand(case=case, place=place, runner=runner, spec=spec))
    return found


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp(f"faults-{request.param}")
    with contextlib.ExitStack() as stack:
        cluster, database = None, f"sqlite:///{folder}/server.db"
        if request.param == "postgresql":
            cluster = request.getfixturevalue("durable_cluster")
            database = stack.enter_context(cluster.database())
        yield stack.enter_context(serving_place(folder, database, cluster, lease_s=LEASE_S))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", FAULTS)
def test_every_job_ends_once_and_rightly(place: Place, fault: str, soak: bool) -> None:
    if place.cluster is None and "database" in fault:
        pytest.skip("SQLite is in the server's own process")
    if place.cluster is not None and fault == "stop the server" and not soak:
        pytest.skip("as with SQLite; with the full counts only (METALMARK_SOAK)")
    for turn in range(20 if soak else 1):
        one_fault(place, fault, hands_for(place, cases(soak=soak), f"{fault} {turn}"))


def one_fault(place: Place, fault: str, hands: list[Hand]) -> None:
    take_up_all(hands)
    for hand in hands:
        if hand.case.moment == "after":
            hand.act()
        beat(hands)
    hit = threading.Barrier(1 + sum(hand.case.moment == "during" for hand in hands))
    threads = [threading.Thread(target=during, args=(hand, hit)) for hand in hands if hand.case.moment == "during"]
    for thread in threads:
        thread.start()
    hit.wait()
    FAULTS[fault](place, LASTS_S[fault])
    ended(threads)
    place.server.wait_until_ready(seconds=30)
    for hand in hands:
        hand.close()
    deliveries = [threading.Thread(target=hand.deliver) for hand in hands if hand.case.delivers]
    for thread in deliveries:
        thread.start()
    ended(deliveries)
    place.settle([hand.job for hand in hands if hand.job is not None], time.monotonic() + SETTLED_S)
    ends = {hand.case.name: end_of(place, hand) for hand in hands}
    right = {hand.case.name: sorted(allowed(hand.case, hand.promised)) for hand in hands}
    wrong = {name: f"{end} is not of {right[name]}" for name, end in ends.items() if end not in right[name]}
    assert wrong == {}
    check_promises(hands, place.ledger())
    time.sleep(0.5)
    assert {hand.case.name: end_of(place, hand) for hand in hands} == ends
    finish_pending(place, hands)
    place.ledger()


EVENTS = {
    "claim": {"claim"},
    "start": {"start", "lease_expire"},
    "complete": {"complete"},
    "fail": {"fail", "lease_expire"},
    "give up": {"runner_cancel"},
    "cancel": {"cancel"},
}
"""What of the ledger makes an answer true: a job that is over already is acknowledged too."""


def check_promises(hands: list[Hand], ledger: dict[str, list[Change]]) -> None:
    for hand in hands:
        happened = {event for event, *_ in ledger.get(hand.job or "", ())}
        for act in hand.promised & EVENTS.keys():
            assert happened & EVENTS[act], f"{hand.case.name}: {act} was answered, and there is {happened}"


def take_up_all(hands: list[Hand]) -> None:
    """Bring every job to its state before the fault, and keep those that are there."""
    held = [hand for hand in hands if hand.case.reach != "new"]
    for hand in held:
        hand.submit()
        assert hand.job is not None
    for number, hand in enumerate(held):
        hand.take_up()
        beat(held[:number])


def beat(hands: list[Hand]) -> None:
    """Keep the leases of all hands for which it is time: all say so before the first is answered."""
    for hand in [hand for hand in hands if hand.beat()]:
        assert hand.answer()["event"] == "ack"


def ended(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()


def during(hand: Hand, hit: threading.Barrier) -> None:
    hit.wait()
    # Whatever comes of it: only an answer is a promise.
    with contextlib.suppress(ConnectionClosed, TimeoutError, OSError, httpx.TransportError, AssertionError):
        hand.act()


def end_of(place: Place, hand: Hand) -> str:
    return "none" if hand.job is None else place.status(hand.job)


def finish_pending(place: Place, hands: list[Hand]) -> None:
    """Jobs that wait are whole: a runner gets and finishes each of them."""
    for hand in hands:
        if hand.job is None or place.status(hand.job) != "pending":
            continue
        hand.open()
        hand.claim()
        hand.told("running")
        hand.told("completed", job=hand.job, results=RESULTS)
        hand.close()
        assert place.status(hand.job) == "processed"
