"""A fleet of runners and a server, while all of it fails at random: no job is lost, and none ends twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import anyio
import httpx
import pytest
from sqlalchemy import create_engine, text
from tests.integration.server.job_ledger import check_ledger

from metalmark.model import EndReason, JobStatus
from metalmark.store import Store
from metalmark.testing.faulty_line import FaultyLine, Line
from metalmark.testing.postgresql import find_postgresql, running_postgresql
from metalmark.testing.rig import Rig, standing_rig

LEASE_S = 4
SETTLED_S = 60 + 4 * LEASE_S
PROGRAM = Path(__file__).with_name("fleet_member.py")
EXCUSES = {str(EndReason.HEARTBEAT_TIMEOUT), str(EndReason.INFRASTRUCTURE)}
"""Why a job of this fleet may fail: its benchmarks never do."""


@dataclass(kw_only=True)
class Crew:
    """A process of several runners, and the line to its server."""

    folder: Path
    credentials: dict[str, str]
    line: FaultyLine
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        secrets = self.folder / "credentials.json"
        secrets.write_text(json.dumps(self.credentials))
        command = [sys.executable, str(PROGRAM), self.line.url, str(self.folder), str(secrets)]
        with (self.folder / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(30)

    def notes(self) -> list[tuple[str, UUID, int]]:
        path = self.folder / "executed.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        words = [line.split() for line in lines]
        return [(what, UUID(job), int(lease)) for what, job, lease, _ in words]

    def unsent(self) -> list[str]:
        return [path.name for path in self.folder.glob("*/*.end")]


@dataclass(kw_only=True)
class Fleet:
    """Crews, the rig that they are at, and the jobs."""

    rig: Rig
    crews: list[Crew]
    spec: str
    chance: random.Random
    jobs: list[UUID] = field(default_factory=list)
    canceled: set[UUID] = field(default_factory=set)
    faults: Counter[str] = field(default_factory=Counter)
    over: threading.Event = field(default_factory=threading.Event)

    def insist(self, method: str, path: str, body: object = None) -> httpx.Response:
        """Send a request again and again, as a client does that does not give up."""
        deadline = time.monotonic() + 120
        headers = {"authorization": f"Bearer {self.rig.key}"}
        for number in range(10**6):
            server = self.rig.servers[number % len(self.rig.servers)]
            try:
                with httpx.Client(
                    base_url=server.url, headers=headers, timeout=5, trust_env=False, verify=False
                ) as client:
                    answer = client.request(method, path, json=body)
                if answer.status_code not in (429, 503):
                    return answer
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline, f"{method} {path} has no answer"
            time.sleep(0.2)
        raise AssertionError

    def submit(self, number: int) -> None:
        """Submit a job; some are tried again, some are canceled."""
        job = {"image": self.rig.image, "spec": self.spec, "timeout": 60, "retry": number % 2 == 0}
        body = {
            "project": self.rig.project,
            "idempotency_key": str(uuid4()),
            "start_time": "2026-01-01T00:00:00Z",
            "end_time": "2026-01-01T00:00:00Z",
            "results": [],
            "job": job,
        }
        answer = self.insist("POST", "/v0/run", body)
        assert answer.status_code in (200, 201), answer.text
        made = UUID(answer.json()["job"])
        self.jobs.append(made)
        if number % 40 == 7:
            self.canceled.add(made)
            self.insist("POST", f"/v0/projects/{self.rig.project}/jobs/{made}/cancel")

    def break_things(self) -> None:
        """Let things fail, one after the other, until all is over."""
        while not self.over.wait(self.chance.uniform(0.1, 1.0)):
            fault = self.chance.choices(FAULTS, weights=[weight for _, weight in FAULTS])[0][0]
            self.faults[fault.__name__] += 1
            fault(self)

    def pause(self) -> None:
        """Wait, now and then for longer than a lease."""
        self.over.wait(self.chance.choice((0.2, 0.5, 1.0, 2.0, LEASE_S + 2.0)))

    def reset(self) -> None:
        self.chance.choice(self.crews).line.reset()

    def weather(self) -> None:
        line = self.chance.choice(self.crews).line
        line.become(self.chance.choice([Line.STALLED, Line.DEAF_CLIENT, Line.DEAF_SERVER, Line.CUT]))
        self.pause()
        line.become(Line.WORKS)

    def kill_crew(self) -> None:
        crew = self.chance.choice(self.crews)
        crew.kill()
        self.pause()
        crew.start()

    def stop_crew(self) -> None:
        crew = self.chance.choice(self.crews)
        os.kill(crew.pid, signal.SIGSTOP)
        self.pause()
        os.kill(crew.pid, signal.SIGCONT)

    def kill_server(self) -> None:
        server = self.chance.choice(self.rig.servers)
        server.kill()
        self.over.wait(self.chance.uniform(0.0, 1.0))
        server.start()

    def restart_server(self) -> None:
        server = self.chance.choice(self.rig.servers)
        server.stop()
        server.start()

    def stop_server(self) -> None:
        server = self.chance.choice(self.rig.servers)
        server.suspend()
        self.pause()
        server.resume()


FAULTS: list[tuple[Callable[[Fleet], None], int]] = [
    (Fleet.reset, 6),
    (Fleet.weather, 6),
    (Fleet.kill_crew, 3),
    (Fleet.stop_crew, 2),
    (Fleet.kill_server, 1),
    (Fleet.restart_server, 1),
    (Fleet.stop_server, 1),
]


@pytest.fixture(params=["sqlite", "postgresql, two servers"])
def rig(request: pytest.FixtureRequest, tmp_path: Path, soak: bool) -> Iterator[Rig]:
    """Servers with short leases."""
    jobs = {"heartbeat_timeout_s": LEASE_S, "grace_s": 10}
    with ExitStack() as stack:
        if request.param == "sqlite":
            yield stack.enter_context(standing_rig(tmp_path, jobs=jobs))
            return
        if find_postgresql() is None:
            pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
        url = stack.enter_context(stack.enter_context(running_postgresql()).database())
        yield stack.enter_context(standing_rig(tmp_path, jobs=jobs, database=url, servers=2))


@pytest.mark.timeout(3600)
def test_no_job_is_lost_and_none_ends_twice(rig: Rig, soak: bool) -> None:
    count, crews, each = (10_000, 5, 10) if soak else (300, 2, 10)
    seed = random.SystemRandom().randrange(2**32)
    with ExitStack() as stack:
        fleet = Fleet(rig=rig, crews=[], spec=rig.spec("any", "container"), chance=random.Random(seed))
        for number in range(crews):
            server = rig.servers[number % len(rig.servers)]
            line = stack.enter_context(FaultyLine(server.port))
            made = [rig.runner(f"member {number} {at}", fleet.spec) for at in range(each)]
            credentials = {runner.runner: runner.key for runner in made}
            crew = Crew(folder=rig.folder / f"crew{number}", credentials=credentials, line=line)
            fleet.crews.append(crew)
            stack.callback(crew.kill)
            crew.start()
        run(fleet, count)
        judge(fleet, statuses(rig), seed)


def run(fleet: Fleet, count: int) -> None:
    """Submit jobs while things fail; then let everything work, and wait until every job is over."""
    breaker = threading.Thread(target=fleet.break_things)
    breaker.start()
    try:
        with ThreadPoolExecutor(2) as submitters:
            for done in [submitters.submit(fleet.submit, number) for number in range(count)]:
                done.result()
        wait(fleet, lambda: left(fleet) <= count // 20, seconds=1800)
    finally:
        fleet.over.set()
        breaker.join(120)
    for crew in fleet.crews:
        crew.line.become(Line.WORKS)
    wait(fleet, lambda: left(fleet) == 0 and not any(crew.unsent() for crew in fleet.crews), seconds=SETTLED_S)


def left(fleet: Fleet) -> int:
    """How many jobs are not over."""
    found = statuses(fleet.rig)
    assert set(fleet.jobs) <= set(found), "a job that was submitted is not there"
    return sum(not status.is_final for status, *_ in found.values())


def wait(fleet: Fleet, true: Callable[[], bool], *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            logs = "\n".join((crew.folder / "log.txt").read_text()[-2000:] for crew in fleet.crews)
            raise AssertionError(f"{left(fleet)} jobs are left, {[crew.unsent() for crew in fleet.crews]}\n{logs}")
        time.sleep(0.5)


def statuses(rig: Rig) -> dict[UUID, tuple[JobStatus, int, str | None]]:
    """Status, last lease and reason of each job, as the database has them."""
    url = str(rig.server.settings["database"]).replace("postgresql://", "postgresql+psycopg://")
    codes = {status.code: status for status in JobStatus}
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            rows = connection.execute(text("SELECT id, status, lease, end_reason FROM jobs")).all()
    finally:
        engine.dispose()
    return {_uuid(row.id): (codes[row.status], row.lease, row.end_reason) for row in rows}


def _uuid(value: object) -> UUID:
    return UUID(bytes=value) if isinstance(value, bytes) else UUID(str(value))


async def ledger(rig: Rig) -> int:
    url = rig.server.settings["database"]
    assert isinstance(url, str)
    async with await Store.open(url) as store:
        return await check_ledger(store)


def judge(fleet: Fleet, found: dict[UUID, tuple[JobStatus, int, str | None]], seed: int) -> None:
    """Every job has ended as the runners' notes of it say."""
    notes = Counter(note for crew in fleet.crews for note in crew.notes())
    assert {note: count for note, count in notes.items() if count > 1} == {}, "a lease was executed twice"
    wrong: dict[UUID, str] = {}
    for job, (status, lease, reason) in found.items():
        kept = notes["kept-completed", job, lease] == 1
        if status is JobStatus.PROCESSED and not notes["executed", job, lease]:
            wrong[job] = "it has results and was not executed"
        elif kept and status is not JobStatus.PROCESSED and job not in fleet.canceled:
            wrong[job] = f"its results were on disk, and it is {status} ({reason})"
        elif status is JobStatus.FAILED and reason not in EXCUSES:
            wrong[job] = f"it failed, and its benchmark cannot ({reason})"
        elif status is JobStatus.CANCELED and job not in fleet.canceled:
            wrong[job] = f"nobody canceled it ({reason})"
    ends = Counter(str(status) for status, *_ in found.values())
    sys.stderr.write(f"seed {seed}: {len(found)} jobs, {dict(ends)}, faults {dict(fleet.faults)}\n")
    assert {job: (why, fleet.rig.job(str(job))) for job, why in wrong.items()} == {}
    assert ends["processed"] > len(found) // 2, "what failed is the exception"
    for job in [job for job, (status, *_) in found.items() if status is JobStatus.PROCESSED][:200]:
        (result,) = fleet.rig.job(str(job))["output"]["results"]
        assert result["stdout"] == f"{job} {found[job][1]}\n", "the results are another's"
    for crew in fleet.crews:
        crew.kill()
    for server in fleet.rig.servers:
        server.stop()
    assert anyio.run(ledger, fleet.rig) > len(found)
