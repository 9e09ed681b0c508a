"""kill -9 and SIGSTOP of runner, server and sandbox, and a network that fails, in every phase of a job.

A fault hits several runners at once, each with a job that is held in another phase. Every job has its one right end
then, what it printed is whole, and nothing of its boxes is left on the host.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.faults.runner.station import Station, reach, send

from metalmark.testing.faulty_line import Line
from metalmark.testing.rig import Rig, standing_rig

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(400)]

LEASE_S = 60
SHORT_S = 1.0
"""How long what is stopped stays so: within the lease, whatever the machine does beside."""
EXEC_S = 8
"""How long the benchmark of a microVM runs beside the fault: longer than that, and than servers take to come back."""
STATIONS = [
    # The last cannot be held.
    ("rootfs", "container"),
    ("pull", "container"),
    ("spawn", "container"),
    ("sent", "container"),
    ("exec", "container"),
    ("exec", "qemu"),
    ("kernel", "qemu"),
    ("collect", "container"),
]
NOT_BEGUN = {"pull", "rootfs", "spawn", "kernel"}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A server whose leases are longer than the short faults."""
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts and cgroups")
    with standing_rig(tmp_path_factory.mktemp("faults"), jobs={"heartbeat_timeout_s": LEASE_S}) as made:
        yield made


@pytest.fixture(scope="module")
def stations(rig: Rig, guest_kernels: Path) -> Iterator[list[Station]]:
    """A runner for each phase, warmed up; at the end each leaves with 0 and nothing behind."""
    with ExitStack() as stack:
        found = [
            Station.open(rig, stack, phase=phase, sandbox=sandbox, kernels=guest_kernels) for phase, sandbox in STATIONS
        ]
        for station in found:
            station.begin_warm_up()
        for station in found:
            assert station.end()["status"] == "processed", station.runner.log()[-4000:]
        yield found
        assert {station.name: station.runner.stop() for station in found} == {station.name: 0 for station in found}
        assert {station.name: station.left_behind() for station in found} == {station.name: {} for station in found}


def weather(state: Line) -> Callable[[list[Station]], None]:
    def fault(stations: list[Station]) -> None:
        for station in stations:
            station.line.become(state)
        time.sleep(SHORT_S)

    return fault


def reset(stations: list[Station]) -> None:
    for station in stations:
        station.line.reset()


def kill_server(stations: list[Station]) -> None:
    stations[0].rig.server.kill()
    stations[0].rig.server.start()


def restart_server(stations: list[Station]) -> None:
    stations[0].rig.server.stop()
    stations[0].rig.server.start()


def stop_server(stations: list[Station]) -> None:
    stations[0].rig.server.suspend()
    time.sleep(SHORT_S)
    stations[0].rig.server.resume()


def stop_runners(stations: list[Station]) -> None:
    for station in stations:
        station.runner.suspend()
    time.sleep(SHORT_S)
    for station in stations:
        station.runner.resume()


def kill_runners(stations: list[Station]) -> None:
    for station in stations:
        station.runner.kill()
    for station in stations:
        station.runner.start()


def stop_sandboxes(stations: list[Station]) -> None:
    stopped = [pid for station in stations for pid in station.sandbox_processes()]
    for pid in stopped:
        send(pid, signal.SIGSTOP)
    time.sleep(SHORT_S)
    for pid in stopped:
        send(pid, signal.SIGCONT)


def kill_sandboxes(stations: list[Station]) -> None:
    for station in stations:
        for pid in station.sandbox_processes():
            send(pid, signal.SIGKILL)


HARMLESS: dict[str, Callable[[list[Station]], None]] = {
    "network reset": reset,
    "network cut": weather(Line.CUT),
    "network stalled": weather(Line.STALLED),
    "network one-way, server deaf": weather(Line.DEAF_SERVER),
    "network one-way, runner deaf": weather(Line.DEAF_CLIENT),
    "server killed": kill_server,
    "server restarted": restart_server,
    "server stopped": stop_server,
    "runner stopped": stop_runners,
    "sandbox stopped": stop_sandboxes,
}


def hit(
    stations: list[Station], fault: Callable[[list[Station]], None], *, retry: bool = False, fatal: bool = False
) -> dict[str, Any]:
    """Bring each station into its phase, let a fault happen, and return how the jobs ended.

    Args:
        stations: Those that it hits.
        fault: What happens.
        retry: Whether jobs may go back to the queue.
        fatal: Benchmarks that run need not come to their end.
    """
    try:
        # The last cannot be held, and sets out when the others are there.
        *others, last = stations
        for group in (others, [last]):
            for station in group:
                station.begin(retry=retry, exec_s=120 if fatal else EXEC_S)
            reach(group)
        late = [station.name for station in stations if station.stays and not station.is_there()]
        assert late == [], "the phase was over before the fault"
        for station in stations:
            station.thaw()
        fault(stations)
    finally:
        for station in stations:
            station.release()
    return {station.name: station.end() for station in stations}


def judge(stations: list[Station], ends: dict[str, Any], wanted: dict[str, tuple[set[str], set[str | None]]]) -> None:
    told = {name: (end["status"], end["end_reason"]) for name, end in ends.items()}
    wrong = {name: end for name, end in told.items() if end[0] not in wanted[name][0] or end[1] not in wanted[name][1]}
    logs = "\n".join(
        f"== {station.name}\n{station.runner.log()[-2500:]}" for station in stations if station.name in wrong
    )
    assert wrong == {}, logs
    for name, end in ends.items():
        if end["status"] == "processed":
            (result,) = end["output"]["results"]
            assert (result["exit_code"], result["stdout"]) == (0, "begun\ndone\n"), name
            if name == "container-collect":
                assert [len(text) for text in result["output"].values()] == [24_000_000]
    assert {station.name: station.unsent() for station in stations} == {station.name: [] for station in stations}
    assert {station.name: station.left_behind() for station in stations} == {station.name: {} for station in stations}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_passes_costs_no_job(stations: list[Station], name: str) -> None:
    ends = hit(stations, HARMLESS[name])
    done: tuple[set[str], set[str | None]] = ({"processed"}, {"completed"})
    wanted = {station.name: done for station in stations}
    if name == "sandbox stopped":
        # A guest that was stopped while its kernel measured its timer is found useless before the benchmark begins.
        wanted["qemu-kernel"] = ({"processed", "failed"}, {"completed", "infrastructure"})
    judge(stations, ends, wanted)


@pytest.mark.parametrize("retry", [False, True], ids=["once", "retried"])
def test_a_runner_that_was_killed_says_so_when_it_is_back(stations: list[Station], retry: bool) -> None:
    ends = hit(stations, kill_runners, retry=retry, fatal=True)
    lost: tuple[set[str], set[str | None]] = ({"failed"}, {"infrastructure"})
    done: tuple[set[str], set[str | None]] = ({"processed"}, {"completed"})
    wanted = {station.name: lost for station in stations}
    for station in stations:
        if station.phase == "sent" or (retry and station.phase in NOT_BEGUN):
            wanted[station.name] = done
        elif station.phase == "collect":
            # It cannot be held there: its results may have been on disk, or at the server, before.
            wanted[station.name] = (lost[0] | done[0], lost[1] | done[1])
    judge(stations, ends, wanted)


def test_a_sandbox_that_was_killed_is_a_fault_of_the_infrastructure(stations: list[Station]) -> None:
    boxed = [station for station in stations if station.phase not in ("pull", "rootfs")]
    ends = hit(boxed, kill_sandboxes, fatal=True)
    wanted: dict[str, tuple[set[str], set[str | None]]] = {
        station.name: ({"failed"}, {"infrastructure"}) for station in boxed
    }
    wanted["container-sent"] = ({"processed"}, {"completed"})
    wanted["container-collect"] = ({"failed", "processed"}, {"infrastructure", "completed"})
    judge(boxed, ends, wanted)
