from __future__ import annotations

import anyio
import pytest
from tests.unit.runner.surroundings import topology

from metalmark.host import place
from metalmark.model import InputError
from metalmark.runner.cpu_shares import CpuShares

pytestmark = pytest.mark.anyio


class Job:
    """Borrows until it is told to end."""

    def __init__(self, shares: CpuShares, *, vcpus: int = 1, memory_bytes: int = 1) -> None:
        self.cpus: tuple[int, ...] = ()
        self.end = anyio.Event()
        self._shares, self._vcpus, self._memory_bytes = shares, vcpus, memory_bytes

    async def run(self) -> None:
        async with self._shares.borrowed(vcpus=self._vcpus, memory_bytes=self._memory_bytes) as others:
            self.cpus = place(topology(4), vcpus=self._vcpus, in_use=others).cpus
            await self.end.wait()


async def test_jobs_side_by_side_share_no_cpu() -> None:
    shares = CpuShares(topology(4))
    jobs = [Job(shares, vcpus=2), Job(shares), Job(shares, vcpus=2), Job(shares)]
    async with anyio.create_task_group() as tasks:
        for job in jobs:
            tasks.start_soon(job.run)
            await anyio.wait_all_tasks_blocked()
        assert [job.cpus for job in jobs] == [(1, 2), (3,), (), ()]
        jobs[1].end.set()
        await anyio.wait_all_tasks_blocked()
        assert jobs[3].cpus == (), "who comes later does not overtake"
        jobs[0].end.set()
        await anyio.wait_all_tasks_blocked()
        assert [job.cpus for job in jobs[2:]] == [(1, 2), (3,)]
        for job in jobs:
            job.end.set()


async def test_job_that_needs_housekeeping_runs_alone() -> None:
    shares = CpuShares(topology(4))
    jobs = [Job(shares, vcpus=4), Job(shares)]
    async with anyio.create_task_group() as tasks:
        for job in jobs:
            tasks.start_soon(job.run)
        await anyio.wait_all_tasks_blocked()
        assert jobs[0].cpus == (1, 2, 3, 0)
        assert jobs[1].cpus == ()
        jobs[0].end.set()
        await anyio.wait_all_tasks_blocked()
        assert jobs[1].cpus == (1,)
        jobs[1].end.set()


async def test_memory_is_waited_for_too_unless_alone() -> None:
    shares = CpuShares(topology(4), memory_bytes=10)
    jobs = [Job(shares, memory_bytes=11), Job(shares, memory_bytes=1), Job(shares, memory_bytes=9)]
    async with anyio.create_task_group() as tasks:
        for job in jobs:
            tasks.start_soon(job.run)
            await anyio.wait_all_tasks_blocked()
        assert [bool(job.cpus) for job in jobs] == [True, False, False]
        jobs[0].end.set()
        await anyio.wait_all_tasks_blocked()
        assert [job.cpus for job in jobs[1:]] == [(1,), (2,)]
        for job in jobs:
            job.end.set()


async def test_who_stops_waiting_takes_nothing() -> None:
    shares = CpuShares(topology(4))
    first, second = Job(shares, vcpus=3), Job(shares, vcpus=3)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first.run)
        with anyio.move_on_after(0.01):
            await second.run()
        first.end.set()
    third = Job(shares, vcpus=3)
    third.end.set()
    with anyio.fail_after(5):
        await third.run()
    assert third.cpus == (1, 2, 3)


async def test_more_than_there_are_is_refused_at_once() -> None:
    shares = CpuShares(topology(4))
    with pytest.raises(InputError, match="4 online"):
        await Job(shares, vcpus=5).run()
