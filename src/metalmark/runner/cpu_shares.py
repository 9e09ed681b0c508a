"""The CPUs and the memory of this machine among the jobs that run side by side: nothing of it is two jobs'."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from metalmark.host import Topology, fits, place


class CpuShares:
    """Lends CPUs and memory to jobs, first come, first served.

    Args:
        topology: The machine as it was when the runner started.
        memory_bytes: What jobs can have of its memory; None where that is not known.
    """

    def __init__(self, topology: Topology, *, memory_bytes: int | None = None) -> None:
        self._topology = topology
        self._memory_bytes = memory_bytes
        self._used: set[int] = set()
        self._used_bytes = 0
        self._turn = anyio.Lock()
        self._returned = anyio.Event()

    @asynccontextmanager
    async def borrowed(self, *, vcpus: int, memory_bytes: int) -> AsyncIterator[frozenset[int]]:
        """Wait until there is enough for a job, and yield the CPUs that are others' meanwhile, for `place`.

        Raises:
            InputError: There will never be as many CPUs.
        """
        async with self._turn:
            while not self._suffices(vcpus, memory_bytes):
                self._returned = anyio.Event()
                await self._returned.wait()
            others = frozenset(self._used)
            mine = place(self._topology, vcpus=vcpus, in_use=others).cpus
            self._used.update(mine)
            self._used_bytes += memory_bytes
        try:
            yield others
        finally:
            self._used.difference_update(mine)
            self._used_bytes -= memory_bytes
            self._returned.set()

    def _suffices(self, vcpus: int, memory_bytes: int) -> bool:
        if not self._used:
            return True
        has_memory = self._memory_bytes is None or self._used_bytes + memory_bytes <= self._memory_bytes
        return has_memory and fits(self._topology, vcpus=vcpus, in_use=self._used)
