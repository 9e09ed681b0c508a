"""A box whose commands run in cgroups of this machine: limited and accounted by the host's kernel."""

from __future__ import annotations

import dataclasses
import os
from abc import abstractmethod

import anyio

from metalmark.sandbox.agent_box import AgentBox
from metalmark.sandbox.port import Execution, OutputSink
from metalmark.system import BoxCgroup, CgroupUsage, in_thread, read_usage, reset_peak, watch_oom
from metalmark.wire import Ending, Exec, Exited


class AccountedBox(AgentBox):
    """What the sandboxes ``container`` and ``none`` share."""

    own_kernel = False
    _before: CgroupUsage | None = None
    """What had been used when the first of the commands under way started."""
    _running = 0
    _overlapped = False
    """Several of the commands under way shared the cgroup: its figures are of all of them."""

    _out_of_memory = False
    """The memory limit was met while the commands under way ran."""

    @property
    @abstractmethod
    def cgroup(self) -> BoxCgroup:
        """The box's cgroups."""

    async def _prepared(self) -> None:
        await in_thread(self.cgroup.settle)
        event = watch_oom(self.cgroup)
        if event is not None:
            self._tasks.start_soon(self._watch_oom, event)

    async def _watch_oom(self, event: int) -> None:
        # A version 1 kernel kills one process. A benchmark that lost one of its processes has not been measured.
        try:
            while True:
                await anyio.wait_readable(event)
                os.eventfd_read(event)
                if not self.cgroup.pids("job/commands"):
                    return  # the kernel also tells when the cgroup is removed
                self._out_of_memory = True
                await in_thread(self.cgroup.kill, "job/commands")
        finally:
            os.close(event)

    async def exec(self, request: Exec, output: OutputSink) -> Execution:
        """Start a command and return at once; several may run at the same time."""
        if self._running == 0:
            reset_peak(self.cgroup)
            self._before = read_usage(self.cgroup)
            self._overlapped = self._out_of_memory = False
        else:
            self._overlapped = True
        self._running += 1
        try:
            return await super().exec(request, output)
        except BaseException:
            self._running -= 1
            raise

    async def _accounted(self, exited: Exited) -> Exited:
        before, now = self._before, read_usage(self.cgroup)
        self._running -= 1
        if before is None:
            return exited
        killed = self._out_of_memory or now.oom_kills > before.oom_kills
        if killed and exited.ending in (Ending.EXITED, Ending.SIGNALED):
            exited = dataclasses.replace(exited, ending=Ending.OUT_OF_MEMORY)
        if self._overlapped:
            return exited
        return dataclasses.replace(
            exited,
            user_us=now.user_us - before.user_us,
            system_us=now.system_us - before.system_us,
            memory_peak_bytes=now.memory_peak_bytes or exited.memory_peak_bytes,
        )
