"""kill -9 and SIGSTOP of runner, server, sandbox and database while a box starts and while it sends its files.

`test_faults_of_a_job` has the other phases. Here the guest agent itself waits in the phase, so that it lasts for as
long as a fault takes. The server's data are in PostgreSQL, which is killed and stopped too, with a job in every phase.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.faults.runner import test_faults_of_a_job as faults
from tests.faults.runner.gated_agent import build_gated_agent
from tests.faults.runner.held_box import BIG_BYTES, HeldBox
from tests.faults.runner.station import Station, reach

from metalmark.testing.postgresql import Cluster, find_postgresql, running_postgresql
from metalmark.testing.rig import Rig, standing_rig

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(400)]

BOXES = [("spawn", "qemu"), ("agent", "qemu"), ("collect", "qemu"), ("agent", "container")]
OTHERS = [
    ("rootfs", "container"),
    ("pull", "container"),
    ("spawn", "container"),
    ("sent", "container"),
    ("exec", "container"),
]
"""With these, the faults of the database meet every phase that a server knows of."""
STARTING = ("spawn", "kernel", "agent")
Wanted = dict[str, tuple[set[str], set[str | None]]]
DONE: tuple[set[str], set[str | None]] = ({"processed"}, {"completed"})
LOST: tuple[set[str], set[str | None]] = ({"failed"}, {"infrastructure"})


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL that keeps what it has committed when it is killed."""
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts and cgroups")
    if find_postgresql() is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    with running_postgresql(fsync="on", synchronous_commit="on") as made:
        yield made


@pytest.fixture(scope="module")
def rig(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A server whose leases are longer than the faults."""
    folder = tmp_path_factory.mktemp("within")
    jobs = {"heartbeat_timeout_s": faults.LEASE_S}
    with cluster.database() as url, standing_rig(folder, database=url, jobs=jobs) as made:
        yield made


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that waits."""
    return build_gated_agent(tmp_path_factory.mktemp("agent"))


@pytest.fixture(scope="module")
def boxes(rig: Rig, guest_kernels: Path, agent: Path) -> Iterator[list[Station]]:
    """A runner for each phase of a box, warmed up; at the end each leaves with 0 and nothing behind."""
    with ExitStack() as stack:
        yield from warm([held(rig, stack, at, guest_kernels, agent) for at in BOXES])


@pytest.fixture(scope="module")
def others(rig: Rig, guest_kernels: Path) -> Iterator[list[Station]]:
    """The same for the other phases of a job."""
    with ExitStack() as stack:
        yield from warm(
            [Station.open(rig, stack, phase=phase, sandbox=sandbox, kernels=guest_kernels) for phase, sandbox in OTHERS]
        )


def held(rig: Rig, stack: ExitStack, at: tuple[str, str], kernels: Path, agent: Path) -> Station:
    return HeldBox.build(rig, stack, phase=at[0], sandbox=at[1], kernels=kernels, agent=agent)


def warm(stations: list[Station]) -> Iterator[list[Station]]:
    for station in stations:
        station.begin_warm_up()
    for station in stations:
        assert station.end()["status"] == "processed", station.runner.log()[-4000:]
    yield stations
    assert {station.name: station.runner.stop() for station in stations} == {station.name: 0 for station in stations}
    assert {station.name: station.left_behind() for station in stations} == {station.name: {} for station in stations}


def hit_and_judge(
    stations: list[Station], fault: Callable[[list[Station]], None], wanted: Wanted, *, retry: bool = False
) -> None:
    """Bring each job into its phase, let a fault happen, and look at the ends."""
    try:
        # A box has a deadline for its start: those that start set out last, and of them the quick ones.
        for sandbox in ("", "qemu", "container"):
            setting_out = [one for one in stations if (one.sandbox if one.phase in STARTING else "") == sandbox]
            for station in setting_out:
                station.begin(retry=retry, exec_s=faults.EXEC_S)
            reach(setting_out)
        for station in stations:
            station.thaw()
        fault(stations)
    finally:
        for station in stations:
            station.release()
    ends = {station.name: station.end() for station in stations}
    faults.judge(stations, ends, wanted)
    for station in stations:
        end = ends[station.name]
        if station.phase == "collect" and end["status"] == "processed":
            (result,) = end["output"]["results"]
            assert [len(text) for text in result["output"].values()] == [BIG_BYTES]


@pytest.mark.parametrize("name", ["server killed", "server stopped", "runner stopped", "sandbox stopped"])
def test_what_passes_costs_no_job(boxes: list[Station], name: str) -> None:
    hit_and_judge(boxes, faults.HARMLESS[name], {station.name: DONE for station in boxes})


def test_a_runner_that_was_killed_says_so_when_it_is_back(boxes: list[Station]) -> None:
    # What has not begun may be tried again, and is.
    wanted = {station.name: LOST if station.phase == "collect" else DONE for station in boxes}
    hit_and_judge(boxes, faults.kill_runners, wanted, retry=True)


def test_a_sandbox_that_was_killed_is_a_fault_of_the_infrastructure(boxes: list[Station]) -> None:
    hit_and_judge(boxes, faults.kill_sandboxes, {station.name: LOST for station in boxes})


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_database_that_fails_costs_no_job(
    boxes: list[Station], others: list[Station], cluster: Cluster, how: str, soak: bool
) -> None:
    def fault(_stations: list[Station]) -> None:
        if how == "killed":
            cluster.kill()
            time.sleep(faults.SHORT_S)
            cluster.start()
            return
        cluster.signal(signal.SIGSTOP)
        try:
            # With the full counts for longer than the server waits for an answer.
            time.sleep(20.0 if soak else faults.SHORT_S)
        finally:
            cluster.signal(signal.SIGCONT)

    stations = [*others, *boxes]
    hit_and_judge(stations, fault, {station.name: DONE for station in stations})
