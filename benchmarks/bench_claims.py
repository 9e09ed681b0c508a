#!/usr/bin/env python3
"""Claims: how many a second, how soon after submission, and what a million finished jobs cost.

Series, on SQLite and on PostgreSQL:

* claims a second by 8 claimants on one queue, beside procrastinate on the same PostgreSQL: fetches a second of the same
  number of jobs by as many workers in the same run. Aim: three times its rate.
* milliseconds from a job's submission to its claim with 1, 50 and 500 runners that wait. Aim: p99 under 50 ms at 500.
* milliseconds of a claim with no and with a million finished jobs. Aim: within 1.5 times.

PostgreSQL keeps its promises here (fsync is on), as SQLite does.
"""

from __future__ import annotations

import argparse
import logging
import statistics
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
CLAIMANTS = 8
PILE = 10_000
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


async def claim_all(floor: Floor, spec: UUID, runner: UUID, times_ms: list[float]) -> None:
    claimant = Claimant(runner=runner, specs=frozenset({spec}))

    async def work(connection: Connection) -> ClaimedJob | NoClaim:
        return await claim_job(connection, claimant, ClaimRules(), now=CLOCK.now())

    while True:
        began = time.perf_counter()
        found = await floor.store.write(work, isolation=Isolation.READ_COMMITTED)
        if isinstance(found, ClaimedJob):
            times_ms.append((time.perf_counter() - began) * 1000)
        elif found is NoClaim.NOTHING:
            return


async def claim_together(batches: ClaimBatches, spec: UUID, runner: UUID, times_ms: list[float]) -> None:
    claimant = Claimant(runner=runner, specs=frozenset({spec}))
    while True:
        began = time.perf_counter()
        found = await batches.claim(claimant)
        if isinstance(found, ClaimedJob):
            times_ms.append((time.perf_counter() - began) * 1000)
        elif found is NoClaim.NOTHING:
            return


async def claims_a_second(floor: Floor, count: int) -> float:
    """As dispatch does it: what comes together is carried out together."""
    spec = await floor.spec("rate")
    runners = [await floor.runner(spec) for _ in range(CLAIMANTS)]
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


async def procrastinate_a_second(url: str, count: int) -> float:
    """The same with procrastinate: its workers fetch jobs until there are none."""
    connector = PsycopgConnector(conninfo=url, min_size=CLAIMANTS, max_size=CLAIMANTS)
    # It is no worker that has to be found by its module.
    logging.getLogger("procrastinate").setLevel(logging.ERROR)
    app = App(connector=connector)

    @app.task(name="bench")
    async def task() -> None:
        return

    async with app.open_async():
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
            for _ in range(CLAIMANTS):
                tasks.start_soon(fetch)
        took_s = time.perf_counter() - began
        assert fetched == count
        return count / took_s


async def submit_to_claim(floor: Floor, waiting: int, rounds: int) -> list[float]:
    """Submit one job after the other while so many runners wait; each that is given one waits again."""
    spec = await floor.spec(f"waiting {waiting}")
    runners = [await floor.runner(spec) for _ in range(waiting)]
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
        await anyio.sleep(0.5 + waiting / 100)
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
    """Have so many jobs that ended: copies of one, made by the database itself."""
    spec = await floor.spec("piled")
    job = await floor.job(spec)
    names = [row.strip() for row in JOB_COLUMNS]
    columns = ", ".join(names)
    values = ", ".join("4" if name == "status" else name for name in names)
    if floor.store.engine_name == "postgresql":
        rows = f"SELECT gen_random_uuid(), {values} FROM jobs, generate_series(1, {PILE}) WHERE jobs.id = :job"
        identifier: object = job.id
    else:
        rows = (
            f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {PILE}) "
            f"SELECT randomblob(16), {values} FROM jobs, n WHERE jobs.id = :job"
        )
        identifier = job.id.bytes

    async def work(connection: Connection) -> None:
        await connection.execute(text(f"INSERT INTO jobs (id, {columns}) {rows}"), {"job": identifier})

    # A write has a deadline, which a million rows at once would not meet.
    for _ in range(count // PILE):
        await floor.store.write(work)

    async def analyze(connection: Connection) -> None:
        await connection.execute(text("ANALYZE jobs"))

    await floor.store.write(analyze)


def job_columns() -> list[str]:
    return [column.name for column in jobs.c if column.name != "id"]


JOB_COLUMNS = job_columns()


async def claim_times(floor: Floor, name: str, rounds: int) -> list[float]:
    spec = await floor.spec(name)
    runner = await floor.runner(spec)
    await fill(floor, spec, rounds + 10)
    times_ms: list[float] = []
    await claim_all(floor, spec, runner, times_ms)
    return times_ms[10:]


async def measure(url: str, *, quick: bool) -> None:
    count = 200 if quick else 4000
    async with await Store.open(url) as store:
        floor = Floor(store=store, now=CLOCK.now() - timedelta(seconds=1))
        await floor.lay()
        name = store.engine_name
        before = await claim_times(floor, "empty", 50 if quick else 500)
        rate = await claims_a_second(floor, count)
        print(f"{name + ': claims a second, ' + str(CLAIMANTS) + ' claimants':58} {rate:8.0f}")
        if name == "postgresql":
            peer = await procrastinate_a_second(url, count)
            print(f"{'procrastinate: fetches a second, as many workers':58} {peer:8.0f}   ratio {rate / peer:.2f}")
        for waiting in (1, 50) if quick else (1, 50, 500):
            times_ms = await submit_to_claim(floor, waiting, 20 if quick else 300)
            told(f"{name}: submitted to claimed, {waiting} waiting", times_ms)
        piled = 10_000 if quick else 1_000_000
        await pile_up(floor, piled)
        after = await claim_times(floor, "piled up", 50 if quick else 500)
        told(f"{name}: a claim, no finished jobs", before)
        told(f"{name}: a claim, {piled} finished jobs", after)
        print(f"{name + ': ratio of medians':58} {statistics.median(after) / statistics.median(before):8.2f}")


@contextmanager
def databases() -> Iterator[list[str]]:
    with tempfile.TemporaryDirectory() as folder:
        urls = [f"sqlite:///{folder}/bench.db"]
        if find_postgresql() is None:
            print("PostgreSQL is not installed: SQLite only")
            yield urls
            return
        settings = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "autovacuum": "on"}
        with running_postgresql(**settings) as cluster, cluster.database() as url:
            yield [*urls, url]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a size of seconds")
    quick = parser.parse_args().quick
    with databases() as urls:
        for url in urls:
            anyio.run(lambda url=url: measure(url, quick=quick))


if __name__ == "__main__":
    main()
