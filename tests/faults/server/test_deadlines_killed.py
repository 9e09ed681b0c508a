"""kill -9 and SIGSTOP of the server and of PostgreSQL before, while and after deadlines of jobs pass.

Nobody says anything here: jobs wait too long, take too long, or their runners are lost, and it is for the server to
notice, once, with the reason that is true, whatever happened to it and its database meanwhile.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from tests.faults.server.own_rig import Case, Rig
from tests.faults.server.place import FAULTS, Place, serving_place

LEASE_S = 5.0
WAIT_S = 5
NOTICED_S = LEASE_S + 5
"""Within which everything is over once the server is there again: it gives silent runners another lease."""
LASTS_S = 2.0
EVERYDAY = {("sqlite", "kill the server"), ("postgresql", "stop the database")}
"""What is tried without `METALMARK_SOAK`: deadlines are the store's, and the same statements on both engines."""


@dataclass(frozen=True, kw_only=True)
class Deadline:
    """What passes, and what then happens to the job."""

    case: Case
    events: list[str]
    timeout_s: int = 60
    late: str = ""
    """State that a late result leaves the job in, or why it is refused. What was canceled stays so."""


def deadlines(moment: str) -> list[Deadline]:
    def case(reach: str, act: str, *, retry: bool = False) -> Case:
        return Case(reach=reach, act=act, moment=moment, retry=retry)

    return [
        Deadline(case=case("pending", "wait"), events=["pending_expire"]),
        # The grace of a second is added.
        Deadline(
            case=case("claimed", "limit", retry=True), timeout_s=3, events=["claim", "limit_expire"], late="canceled"
        ),
        Deadline(
            case=case("running", "limit"), timeout_s=3, events=["claim", "start", "limit_expire"], late="canceled"
        ),
        # Back in the queue, it has waited too long there.
        Deadline(
            case=case("claimed", "lease", retry=True),
            events=["claim", "requeue", "pending_expire"],
            late="stale_lease",
        ),
        Deadline(case=case("claimed", "lease"), events=["claim", "lease_expire"], late="processed"),
        Deadline(
            case=case("running", "lease", retry=True), events=["claim", "start", "lease_expire"], late="processed"
        ),
    ]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp(f"deadlines-{request.param}")
    with contextlib.ExitStack() as stack:
        cluster, database = None, f"sqlite:///{folder}/server.db"
        if request.param == "postgresql":
            cluster = request.getfixturevalue("durable_cluster")
            database = stack.enter_context(cluster.database())
        limits = {"max_pending_s": WAIT_S, "allowance_s": 0}
        yield stack.enter_context(serving_place(folder, database, cluster, lease_s=LEASE_S, **limits))


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_deadline_is_heeded_once(place: Place, fault: str, soak: bool) -> None:
    if place.cluster is None and "database" in fault:
        pytest.skip("SQLite is in the server's own process")
    engine = "sqlite" if place.cluster is None else "postgresql"
    if not soak and (engine, fault) not in EVERYDAY:
        pytest.skip("with the full counts only (METALMARK_SOAK)")
    for turn in range(20 if soak else 1):
        one_fault(place, fault, f"{fault} {turn}")


def one_fault(place: Place, fault: str, name: str) -> None:
    """Have deadlines pass before, while and after a server or its database is away, and see what came of them."""
    with contextlib.ExitStack() as stack:
        began_s = time.monotonic()
        rigs = [silent(place, stack, name, "before")]
        sleep_until(began_s + 2.5)
        rigs.append(silent(place, stack, name, "meanwhile"))
        sleep_until(began_s + 5)
        rigs.append(silent(place, stack, name, "afterwards"))
        place.settle([life.job for life in rigs[0].lives], time.monotonic() + NOTICED_S)
        FAULTS[fault](place, LASTS_S)
        place.server.wait_until_ready(seconds=30)
        lives = [life for rig in rigs for life in rig.lives]
        places = place.settle([life.job for life in lives if life.lease], time.monotonic() + NOTICED_S)
        # What waits is over too, a moment later.
        deadline = time.monotonic() + NOTICED_S
        while "pending" in {places[life.job] for life in lives}:
            assert time.monotonic() < deadline, {life.case.name: places[life.job] for life in lives}
            time.sleep(0.2)
            places = place.statuses()
        check(place, rigs)
        for rig in rigs:
            come_late(place, rig)
        place.ledger()


def sleep_until(monotonic_s: float) -> None:
    time.sleep(max(0.0, monotonic_s - time.monotonic()))


def silent(place: Place, stack: contextlib.ExitStack, name: str, moment: str) -> Rig:
    """Return a runner that takes jobs up and then says no more, on a connection that stays open."""
    rig = Rig(place, f"{name} {moment}", [], lives_on=False)
    stack.callback(rig.close)
    _, unserved = place.runner(f"{name} {moment}, away")
    rig.connect()
    # No slot is left for what comes back to the queue.
    rig.want(sum(deadline.case.reach != "pending" for deadline in deadlines(moment)))
    for deadline in deadlines(moment):
        reach = deadline.case.reach
        life = rig.add(deadline.case, spec=unserved if reach == "pending" else rig.spec, timeout=deadline.timeout_s)
        while not life.lease and reach != "pending":
            rig.hear()
        if reach == "running":
            rig.tell(life, "start")
        # On a machine with much to do, this takes longer than a lease.
        rig.beat(every_s=LEASE_S / 5)
    return rig


def check(place: Place, rigs: list[Rig]) -> None:
    ledger = place.ledger()
    for rig in rigs:
        for life, deadline in zip(rig.lives, deadlines("any"), strict=True):
            happened = [event for event, *_ in ledger[life.job]]
            # A machine with much to do may come too late with the start itself.
            expected = [event for event in deadline.events if event != "start" or "start" in life.promised]
            assert happened == expected, life.case.name


def come_late(place: Place, rig: Rig) -> None:
    """The runner comes back with results of everything: those of lost leases count, and nothing else does."""
    rig.connect()
    assert not any(life.kept for life in rig.lives if life.lease)
    for life, deadline in zip(rig.lives, deadlines("any"), strict=True):
        if not life.lease:
            continue
        taken = rig.tell(life, "complete")
        found = place.status(life.job) if taken else life.refused
        assert found == deadline.late, life.case.name
