#!/usr/bin/env python3
"""Claims: how many a second, how soon after submission, and what a million finished jobs cost.

Series, on SQLite and on PostgreSQL:

* claims a second by 8 and by 64 claimants on one queue, beside procrastinate on the same PostgreSQL: fetches a second
  of the same number of jobs by as many workers in the same run. Aim: three times its rate.
* milliseconds from a job's submission to its claim with 1, 50 and 500 runners that wait. Aim: p99 under 50 ms at 500.
* milliseconds of a claim with no and with a million finished jobs, in two databases of the same server by turns. Aim:
  within 1.5 times.

PostgreSQL keeps its promises here (fsync is on), as SQLite does. What is measured is in a folder of $TMPDIR; the first
line says what kind of storage that is, and how busy the machine was.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import anyio
import anyio.abc
from procrastinate import App, PsycopgConnector
from sqlalchemy import text

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.integration.store.job_floor import Floor  # noqa: E402

from metalmark.model import Capabilities  # noqa: E402
from metalmark.server.claim_batches import ClaimBatches  # noqa: E402
from metalmark.server.dispatcher import Dispatcher  # noqa: E402
from metalmark.store import (  # noqa: E402
    Claimant,
    ClaimedJob,
    ClaimRules,
    Connection,
    Isolation,
    NoClaim,
    Store,
    claim_job,
)
from metalmark.store.tables import jobs  # noqa: E402
from metalmark.system import SystemClock  # noqa: E402
from metalmark.testing.postgresql import find_postgresql, running_postgresql  # noqa: E402

CLOCK = SystemClock()
CLAIMANTS = (8, 64)
PILE = 50_000
ABLE = Capabilities(sandboxes=frozenset({"firecracker"}))


def quantile(values: list[float], part: float) -> float:
    """Return the smallest value that so large a part is not above."""
    return sorted(values)[max(0, round(part * len(values)) - 1)]


def told(what: str, values_ms: list[float]) -> None:
    spread = f"p50 {statistics.median(values_ms):8.2f}  p99 {quantile(values_ms, 0.99):8.2f}"
    print(f"{what:58} {spread}  max {max(values_ms):8.2f} ms  (n={len(values_ms)})")


async def fill(floor: Floor, spec: UUID, count: int) -> None:
    """Submit jobs, many in one write."""
    for start in range(0, count, 500):

        async def work(connection: Connection, size: int = min(500, count - start)) -> None:
            for _ in range(size):
                await floor.submit(connection, spec, now=floor.now)

        await floor.store.write(work)


async def claim_together(batches: ClaimBatches, spec: UUID, runner: UUID, times_ms: list[float]) -> None:
    claimant = Claimant(runner=runner, specs=frozenset({spec}))
    while True:
        began = time.perf_counter()
        found = await batches.claim(claimant)
        if isinstance(found, ClaimedJob):
            times_ms.append((time.perf_counter() - began) * 1000)
        elif found is NoClaim.NOTHING:
            return


async def make_runners(floor: Floor, spec: UUID, count: int) -> list[UUID]:
    """Make runners, many in one write."""
    made: list[UUID] = []

    async def make() -> None:
        made.append(await floor.runner(spec))

    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(make)
    return made


async def claims_a_second(floor: Floor, claimants: int, count: int) -> float:
    """As dispatch does it: what comes together is carried out together."""
    spec = await floor.spec(f"rate {claimants}")
    runners = await make_runners(floor, spec, claimants)
    await fill(floor, spec, count)
    times_ms: list[float] = []
    batches = ClaimBatches(floor.store, CLOCK, ClaimRules())
    began = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for runner in runners:
            tasks.start_soon(claim_together, batches, spec, runner, times_ms)
    took_s = time.perf_counter() - began
    assert len(times_ms) == count
    return count / took_s


async def procrastinate_a_second(url: str, workers: int, count: int) -> float:
    """The same with procrastinate: its workers fetch jobs until there are none."""
    connector = PsycopgConnector(conninfo=url, min_size=workers, max_size=workers)
    # It is no worker that has to be found by its module.
    logging.getLogger("procrastinate").setLevel(logging.ERROR)
    app = App(connector=connector)

    @app.task(name="bench")
    async def task() -> None:
        return

    async with app.open_async():
        if not await app.check_connection_async():
            await app.schema_manager.apply_schema_async()
        await task.batch_defer_async(*({} for _ in range(count)))
        fetched = 0

        async def fetch() -> None:
            nonlocal fetched
            worker = await app.job_manager.register_worker()
            while await app.job_manager.fetch_job(queues=None, worker_id=worker) is not None:
                fetched += 1

        began = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            for _ in range(workers):
                tasks.start_soon(fetch)
        took_s = time.perf_counter() - began
        assert fetched == count
        return count / took_s


async def all_asleep(dispatcher: Dispatcher, waiting: int) -> None:
    """Wait until so many runners have found nothing and sleep."""
    waiters = dispatcher._waiters  # noqa: SLF001 - nothing else tells a runner that looks from one that sleeps
    while len(waiters) < waiting or any(waiter.busy or waiter.look for waiter in waiters):  # noqa: ASYNC110 - see above
        await anyio.sleep(0.02)


async def submit_to_claim(floor: Floor, waiting: int, rounds: int) -> list[float]:
    """Submit one job after the other while so many runners wait; each that is given one waits again."""
    spec = await floor.spec(f"waiting {waiting}")
    runners = await make_runners(floor, spec, waiting)
    claimed_at: dict[UUID, float] = {}
    got = anyio.Event()

    def note(job: ClaimedJob) -> None:
        claimed_at[job.job] = time.perf_counter()
        got.set()

    dispatcher = Dispatcher(floor.store, CLOCK, ClaimRules(), claimed=note)

    async def wait(runner: UUID) -> None:
        while True:
            await dispatcher.wait_for_job(runner=runner, capabilities=ABLE, deadline_s=CLOCK.monotonic_s() + 600)

    times_ms = []
    async with anyio.create_task_group() as tasks:
        await tasks.start(dispatcher.run)
        for runner in runners:
            tasks.start_soon(wait, runner)
        await all_asleep(dispatcher, waiting)
        for _ in range(rounds):
            got = anyio.Event()
            began = time.perf_counter()
            job = await floor.job(spec)
            with anyio.fail_after(30):
                await got.wait()
            times_ms.append((claimed_at[job.id] - began) * 1000)
            # The runner that got it is to wait again before the next comes.
            await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    return times_ms


async def pile_up(floor: Floor, count: int) -> None:
    """Have so many jobs that ended: copies of one, made by the database itself, one after the other as jobs are."""
    spec = await floor.spec("piled")
    job = await floor.job(spec)
    names = [column.name for column in jobs.c if column.name != "id"]
    columns = ", ".join(names)
    values = ", ".join("4" if name == "status" else name for name in names)
    if floor.store.engine_name == "postgresql":
        numbers = "generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS n(i)"
        rows = f"SELECT CAST(lpad(to_hex(i), 32, '0') AS uuid), {values} FROM jobs, {numbers} WHERE jobs.id = :job"
        identifier: object = job.id
    else:
        numbers = "WITH RECURSIVE n(i) AS (SELECT :first UNION ALL SELECT i + 1 FROM n WHERE i < :last)"
        rows = f"{numbers} SELECT CAST(printf('%016d', i) AS BLOB), {values} FROM jobs, n WHERE jobs.id = :job"
        identifier = job.id.bytes
    # A write has a deadline, which a million rows at once would not meet.
    for first in range(1, count + 1, PILE):

        async def work(connection: Connection, first: int = first) -> None:
            given = {"job": identifier, "first": first, "last": min(count, first + PILE - 1)}
            await connection.execute(text(f"INSERT INTO jobs (id, {columns}) {rows}"), given)

        await floor.store.write(work)

    async def analyze(connection: Connection) -> None:
        await connection.execute(text("ANALYZE jobs"))

    await floor.store.write(analyze)


async def claim_one(floor: Floor, claimant: Claimant) -> float:
    """Claim a job by itself, and return how many milliseconds it took."""

    async def work(connection: Connection) -> ClaimedJob | NoClaim:
        return await claim_job(connection, claimant, ClaimRules(), now=CLOCK.now())

    began = time.perf_counter()
    found = await floor.store.write(work, isolation=Isolation.READ_COMMITTED)
    took_ms = (time.perf_counter() - began) * 1000
    assert isinstance(found, ClaimedJob)
    return took_ms


async def claim_by_turns(floors: list[Floor], rounds: int) -> list[list[float]]:
    """Claim in one database after the other, so that what else the machine does hits all alike."""
    claimants = []
    for floor in floors:
        spec = await floor.spec("by turns")
        claimants.append(Claimant(runner=await floor.runner(spec), specs=frozenset({spec})))
        await fill(floor, spec, rounds + 10)
    times_ms: list[list[float]] = [[] for _ in floors]
    for _ in range(rounds + 10):
        for floor, claimant, times in zip(floors, claimants, times_ms, strict=True):
            times.append(await claim_one(floor, claimant))
    return [times[10:] for times in times_ms]


async def measure(url: str, other_url: str, *, quick: bool) -> None:
    count = 100 if quick else 4000
    async with await Store.open(url) as store, await Store.open(other_url) as other:
        floor, piled_floor = (Floor(store=one, now=CLOCK.now() - timedelta(seconds=1)) for one in (store, other))
        await floor.lay()
        await piled_floor.lay()
        name = store.engine_name
        for claimants in CLAIMANTS[:1] if quick else CLAIMANTS:
            rate = await claims_a_second(floor, claimants, count)
            print(f"{f'{name}: claims a second, {claimants} claimants':58} {rate:8.0f}")
            if name == "postgresql":
                peer = await procrastinate_a_second(url, claimants, count)
                what = f"procrastinate: fetches a second, {claimants} workers"
                print(f"{what:58} {peer:8.0f}   ratio {rate / peer:.2f}")
        for waiting in (1, 20) if quick else (1, 50, 500):
            times_ms = await submit_to_claim(floor, waiting, 10 if quick else 300)
            told(f"{name}: submitted to claimed, {waiting} waiting", times_ms)
        piled = 5_000 if quick else 1_000_000
        began = time.perf_counter()
        await pile_up(piled_floor, piled)
        print(f"{f'{name}: {piled} finished jobs made in':58} {time.perf_counter() - began:8.1f} s")
        before, after = await claim_by_turns([floor, piled_floor], 50 if quick else 500)
        told(f"{name}: a claim, no finished jobs", before)
        told(f"{name}: a claim, {piled} finished jobs", after)
        print(f"{name + ': ratio of medians':58} {statistics.median(after) / statistics.median(before):8.2f}")


@contextmanager
def databases() -> Iterator[list[tuple[str, str]]]:
    """Give addresses of two databases of each engine."""
    with tempfile.TemporaryDirectory() as folder:
        storage = subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True, check=False).stdout
        load = " ".join(f"{value:.1f}" for value in os.getloadavg())
        print(f"storage {storage.strip()}, {os.cpu_count()} processors, load {load}")
        urls = [(f"sqlite:///{folder}/bench.db", f"sqlite:///{folder}/other.db")]
        if find_postgresql() is None:
            print("PostgreSQL is not installed: SQLite only")
            yield urls
            return
        settings = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "autovacuum": "on"}
        settings["shared_buffers"] = "'128MB'"
        with running_postgresql(**settings) as cluster, cluster.database() as url, cluster.database() as other:
            yield [*urls, (url, other)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a size of seconds")
    quick = parser.parse_args().quick
    with databases() as pairs:
        for url, other in pairs:
            anyio.run(lambda url=url, other=other: measure(url, other, quick=quick))


if __name__ == "__main__":
    main()
