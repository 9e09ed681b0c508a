"""kill -9 and SIGSTOP of the server and of PostgreSQL while our own runners have many jobs on one connection each.

One runner comes back, names its leases, says everything again and brings its jobs to their end; another one is gone.
Results are uploaded meanwhile. What was acknowledged has to hold, what is said twice to change nothing, and every job
to end, once, within the lease and five seconds.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.faults.server.own_rig import ENDS, MESSAGES, Case, Life, Rig
from tests.faults.server.own_upload import Uploading
from tests.faults.server.place import FAULTS, Place, serving_place
from tests.integration.server.job_ledger import Change

LEASE_S = 5.0
STOPPED_S = LEASE_S + 1
SETTLED_S = LEASE_S + 5
LASTS_S = {
    "kill the server": 0.0,
    "stop the server": STOPPED_S,
    "kill the database": 0.0,
    "stop the database": STOPPED_S,
}
QUICK_S = {"kill the server": LEASE_S - 1, "stop the server": 1.5}
"""Within which a runner that comes back is sure of its leases: a server gives them anew at its start, and listens for
two seconds to what was said while it was stopped."""
ACTS = [
    ("claimed", "phase", True),
    ("claimed", "start", False),
    ("claimed", "attach", False),
    ("claimed", "complete", False),
    ("claimed", "fail", False),
    ("claimed", "give up", False),
    ("claimed", "fault", True),
    ("claimed", "fault", False),
    ("claimed", "cancel", False),
    ("running", "heartbeat", False),
    ("running", "output", False),
    ("running", "complete", False),
    ("running", "fail", False),
    ("running", "give up", False),
    ("running", "fault", True),
    ("running", "cancel", False),
]
ANSWERED = {("claimed", "fault"), *(("running", act) for act in ("complete", "fail", "give up", "cancel", "output"))}
"""What is tried after its answer too, without `METALMARK_SOAK`."""
UPLOADS = ["in mid-body", "before the answer", "answered"]
IDLE = {"phase", "start", "heartbeat"}
"""Acts of which one each stands for all that a runner has not done yet."""
EVENTS = {
    "claim": {"claim"},
    "start": {"start", "lease_expire"},
    "complete": {"complete"},
    "hand in": {"complete"},
    "fail": {"fail", "lease_expire"},
    "fault": {"fail", "requeue", "lease_expire"},
    "give up": {"runner_cancel"},
    "cancel": {"cancel"},
}
"""What of the ledger makes an answer true: a job that is over already is acknowledged too."""


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp(f"own-{request.param}")
    with contextlib.ExitStack() as stack:
        cluster, database = None, f"sqlite:///{folder}/server.db"
        if request.param == "postgresql":
            cluster = request.getfixturevalue("durable_cluster")
            database = stack.enter_context(cluster.database())
        yield stack.enter_context(serving_place(folder, database, cluster, lease_s=LEASE_S))


def cases(*, soak: bool, lives_on: bool) -> list[Case]:
    found = [
        Case(reach=reach, act=act, moment=moment, retry=retry)
        for reach, act, retry in ACTS
        for moment in ("before", "during", "after")
        if moment == "during"
        or (moment == "before" and (act in IDLE or (soak and lives_on)))
        or (moment == "after" and (soak or (reach, act) in ANSWERED))
    ]
    if lives_on:
        found += [Case(reach="running", act="upload", moment=moment) for moment in UPLOADS]
    return found


def claims(*, soak: bool) -> list[Case]:
    return [
        Case(reach="pending", act="claim", moment=moment, retry=retry)
        for moment in (("before", "during", "after") if soak else ("during",))
        for retry in (True, False)
    ]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("fault", FAULTS)
def test_every_job_of_a_connection_ends_once_and_rightly(place: Place, fault: str, soak: bool) -> None:
    if place.cluster is None and "database" in fault:
        pytest.skip("SQLite is in the server's own process")
    if place.cluster is not None and fault == "stop the server" and not soak:
        pytest.skip("as with SQLite; with the full counts only (METALMARK_SOAK)")
    for turn in range(20 if soak else 1):
        pause_s = random.uniform(0, 0.05)
        print(f"turn {turn}: {fault}, {pause_s:.4f} s after the last message")  # noqa: T201 - shown when it fails
        Turn(place, fault, f"{fault} {turn}", soak=soak).play(pause_s)


class Turn:
    """One fault and all that it hits."""

    def __init__(self, place: Place, fault: str, name: str, *, soak: bool) -> None:
        self.place = place
        self.fault = fault
        self.rigs = [
            Rig(place, f"{name} lives on", cases(soak=soak, lives_on=True), lives_on=True),
            Rig(place, f"{name} dies", cases(soak=soak, lives_on=False), lives_on=False),
        ]
        for lives_on in (True, False):
            moments = {case.moment for case in claims(soak=soak)}
            for moment in sorted(moments):
                these = [case for case in claims(soak=soak) if case.moment == moment]
                self.rigs.append(Rig(place, f"{name} claims {moment} {lives_on}", these, lives_on=lives_on))
        self.uploads: dict[str, Uploading] = {}

    def play(self, pause_s: float) -> None:
        try:
            for rig in self.rigs:
                rig.take_up()
                self.pulse()
            self.act_after()
            self.act_during(pause_s)
            self.come_back()
            self.check()
            self.finish_pending()
        finally:
            for rig in self.rigs:
                rig.close()
            for upload in self.uploads.values():
                upload.break_off()

    def act_after(self) -> None:
        """What is answered before the fault."""
        for rig in self.rigs:
            after = [life for life in rig.lives if life.case.moment == "after"]
            if any(life.case.act == "claim" for life in after):
                rig.want(len(after))
                while any(not life.lease for life in after):
                    rig.hear()
                continue
            for life in after:
                if life.case.act == "cancel":
                    assert self.place.cancel(life.job)
                    life.promised.add("cancel")
                else:
                    rig.all_take([life], life.case.act)
                self.pulse()
            for life in rig.lives:
                if life.case.act == "upload":
                    self.uploads[life.job] = Uploading(rig=rig, life=life)
                    if life.case.moment == "answered":
                        assert self.uploads[life.job].finish()
                    self.pulse()

    def pulse(self) -> None:
        """Let all runners give signs of life in time."""
        for rig in self.rigs:
            rig.beat(every_s=LEASE_S / 5)

    def act_during(self, pause_s: float) -> None:
        """What is under way when the fault comes, and the fault."""
        self.upload("in mid-body", 0.95)
        for rig in self.rigs:
            rig.beat()
        threads = [threading.Thread(target=self.cancel, args=(life,)) for life in self.now("cancel")]
        if LASTS_S[self.fault]:
            # A runner goes on while nobody hears it.
            threads += [threading.Timer(LEASE_S / 2, rig.beat_unheard) for rig in self.rigs if rig.lives_on]
        for thread in threads:
            thread.start()
        self.upload("before the answer", 1)
        for rig in self.rigs:
            self.say_at_once(rig)
        time.sleep(pause_s)
        FAULTS[self.fault](self.place, LASTS_S[self.fault])
        for thread in threads:
            thread.join(timeout=60)
            assert not thread.is_alive()
        for rig in self.rigs:
            rig.drain()

    def upload(self, moment: str, until: float) -> None:
        for upload in self.uploads.values():
            if upload.life.case.moment == moment:
                upload.begin(until)

    def say_at_once(self, rig: Rig) -> None:
        """Send everything that a runner says when the fault comes, and wait for no answer."""
        now = [life for life in rig.lives if life.case.moment == "during"]
        if any(life.case.act == "claim" for life in now):
            rig.want(len(now))
            return
        for life in now:
            if life.case.act != "cancel":
                rig.send(life, life.case.act)

    def now(self, act: str) -> list[Life]:
        lives = [life for rig in self.rigs for life in rig.lives]
        return [life for life in lives if (life.case.moment, life.case.act) == ("during", act)]

    def cancel(self, life: Life) -> None:
        with contextlib.suppress(httpx.TransportError):
            if self.place.cancel(life.job):
                life.promised.add("cancel")

    def come_back(self) -> None:
        self.place.server.wait_until_ready(seconds=30)
        for rig in self.rigs:
            if not rig.lives_on:
                rig.close()
        living = [rig for rig in self.rigs if rig.lives_on]
        for rig in living:
            rig.connect()
            self.check_kept(rig)
        for rig in living:
            for life in rig.lives:
                self.bring_to_end(rig, life)
                self.pulse()

    def check_kept(self, rig: Rig) -> None:
        """A server that was away takes no lease from a runner that could not reach it and is quick to do so again."""
        if time.monotonic() - self.place.back_s < QUICK_S.get(self.fault, 0.0):
            # A claim may have been read from the socket only now.
            certain = [life for life in rig.lives if life.lease and life.case.act not in ENDS | {"cancel", "claim"}]
            assert [life.case.name for life in certain if not life.kept] == []

    def bring_to_end(self, rig: Rig, life: Life) -> None:
        act = life.case.act
        if not life.lease:
            return
        if act == "upload":
            if self.uploads[life.job].finish():
                rig.tell(life, "hand in", **self.uploads[life.job].named)
                rig.tell(life, "hand in", **self.uploads[life.job].named)
        elif act in ENDS:
            # Whether or not it was answered before, and twice.
            rig.tell(life, act)
            rig.tell(life, act)
        elif life.kept and rig.tell(life, "attach"):
            if act in MESSAGES or act == "heartbeat":
                rig.tell(life, act)
            rig.tell(life, "start")
            rig.tell(life, "complete")

    def check(self) -> None:
        deadline = time.monotonic() + SETTLED_S
        lives = [(rig, life) for rig in self.rigs for life in rig.lives]
        ends = self.place.settle([life.job for _, life in lives], deadline)
        wrong = {}
        for rig, life in lives:
            end = ends[life.job]
            if end not in right_ends(rig, life):
                wrong[f"{life.case.name}, {rig.lives_on=}, {life.promised}, {life.refused}"] = end
        assert wrong == {}
        self.check_promises(self.place.ledger())
        for _, life in lives:
            if "output" in life.promised:
                shown = self.place.call("GET", f"/v0/projects/{self.place.project}/jobs/{life.job}/output")
                assert shown.text.count("event: output") == 1, life.case.name
        storage = Path(str(self.place.server.settings["storage"]))
        assert all(upload.is_stored(storage) for upload in self.uploads.values())

    def check_promises(self, ledger: dict[str, list[Change]]) -> None:
        for rig in self.rigs:
            for life in rig.lives:
                happened = {event for event, *_ in ledger.get(life.job, ())}
                for act in life.promised & EVENTS.keys():
                    assert happened & EVENTS[act], f"{life.case.name}: {act} was answered, and there is {happened}"

    def finish_pending(self) -> None:
        """Jobs that went back or were never given are whole: a runner gets each of them under a new lease."""
        statuses = self.place.statuses()
        for rig in self.rigs:
            waiting = [life for life in rig.lives if statuses[life.job] == "pending"]
            if not waiting:
                continue
            earlier = {life.job: life.lease for life in waiting}
            for life in waiting:
                life.lease, life.promised = 0, set()
            rig.connect()
            rig.want(len(waiting))
            while any(not life.lease for life in waiting):
                rig.hear()
            for life in waiting:
                lease, old = life.lease, earlier[life.job]
                assert lease > old, life.case.name
                if old:
                    life.lease = old
                    for act in ("attach", "phase", "start", "complete", "fail", "fault", "give up"):
                        assert not rig.tell(life, act), f"{act} under a lease that was lost"
                        assert life.refused == "stale_lease"
                    life.lease = lease
                assert rig.tell(life, "start")
                assert rig.tell(life, "complete")
                assert self.place.status(life.job) == "processed"
        self.place.ledger()


def right_ends(rig: Rig, life: Life) -> set[str]:
    """The ends that are right, by what the server had acknowledged and the runner has done since."""
    act, retry = life.case.act, life.case.retry
    promised = {
        "complete": {"processed"},
        "hand in": {"processed"},
        "give up": {"canceled"},
        "fail": {"failed"},
        "fault": {"pending"} if retry and life.case.reach == "claimed" else {"failed"},
    }
    for told, end in promised.items():
        if told in life.promised:
            return end
    if "cancel" in life.promised:
        return {"canceled"}
    # Of a lost runner: before the benchmark began, the job may go back.
    lost = {"pending"} if retry and life.case.reach != "running" else {"failed"}
    if not life.lease:
        return lost | {"pending"}
    if act == "claim":
        # Its runner never spoke of it: it goes back when the server sees the connection end.
        lost |= {"pending"}
    if rig.lives_on and (act in ("complete", "upload") or (life.kept and act not in ENDS | {"cancel"})):
        return {"processed"}
    return lost | {"complete": {"processed"}, "give up": {"canceled"}, "cancel": {"canceled"}}.get(act, set())
