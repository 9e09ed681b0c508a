"""What a person sees of a running daemon: lines of log, and on a terminal its jobs as they are."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import UUID

import anyio
import structlog

from metalmark.cli.logs import Verbosity, set_up_logging, shown
from metalmark.model import MetalmarkError, printable
from metalmark.runner import DaemonObserver, JobInHand, JobsInHand, ProvedMachine
from metalmark.system import monotonic_s, sleep_s

if TYPE_CHECKING:
    from rich.console import RenderableType

_SHOWN_ENDS = 5
_REFRESH_S = 0.2
_TICK_S = 1.0
_log = structlog.get_logger(__name__)


class RunnerLog(DaemonObserver):
    """Logs what happens to the connection and to the daemon. Its jobs say what happens to them by themselves."""

    def __init__(self, server: str, runner: str) -> None:
        self.server = server
        self.runner = runner
        self.connection = "connecting"
        self.machine: ProvedMachine | None = None
        self.jobs: JobsInHand | None = None

    def proved(self, machine: ProvedMachine) -> None:
        """Say what this machine can do."""
        self.machine = machine
        said = machine.capabilities
        _log.info(
            "machine proved",
            sandboxes=list(said.sandboxes),
            vcpus=said.vcpus,
            memory_bytes=said.memory_bytes,
            disk_bytes=said.disk_bytes,
            network=said.network,
        )

    def started(self, jobs: JobsInHand) -> None:
        """Say what is left from before."""
        self.jobs = jobs
        _log.info("runner started", server=self.server, runner=self.runner, unsent=len(jobs.holding()))

    def connected(self, protocol: str, version: str) -> None:
        """Say to whom."""
        self.connection = f"connected ({protocol})"
        _log.info("connected", server=self.server, protocol=protocol, version=version)

    def disconnected(self, error: MetalmarkError | None, wait_s: float) -> None:
        """Say why, and when it is tried again."""
        if error is None:
            self.connection = "connecting"
            return
        self.connection = f"not connected: {error}"
        hint = {"hint": error.hint} if error.hint else {}
        _log.warning("not connected", error=str(error), again_in_s=round(wait_s, 1), **hint)

    def draining(self) -> None:
        """Say that the end has begun."""
        self.connection = "ending: no more jobs are taken; once more to cancel those that run"
        _log.info("runner ends", jobs=[str(job.job) for job in self.jobs.holding()] if self.jobs else [])


class RunnerView(RunnerLog):
    """Shows the jobs in hand on a terminal, below the log."""

    def __init__(self, server: str, runner: str) -> None:
        super().__init__(server, runner)
        self._since_s: dict[JobInHand, float] = {}
        self._ends: deque[tuple[UUID, str]] = deque(maxlen=_SHOWN_ENDS)

    def render(self) -> RenderableType:
        """Return what is to be seen now."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        lines: list[RenderableType] = [Text(printable(f"{self.runner} at {self.server}: {self.connection}"))]
        if self.machine is not None:
            sandboxes = ", ".join(self.machine.capabilities.sandboxes)
            lines.append(Text(f"sandboxes: {sandboxes}", style="dim"))
        table = Table(box=None, padding=(0, 2, 0, 0))
        for column in ("job", "spec", "state", "time"):
            table.add_column(column)
        for job in self._note_jobs():
            spec = str(job.assignment.spec.slug) if job.assignment is not None else ""
            elapsed = monotonic_s() - self._since_s[job]
            table.add_row(str(job.job), printable(spec), _state(job), f"{elapsed:.0f} s")
        if table.row_count:
            lines.append(table)
        elif self.jobs is not None:
            lines.append(Text("waiting for jobs", style="dim"))
        lines += [Text(printable(f"{job}  {end}"), style="dim") for job, end in self._ends]
        return Group(*lines)

    def _note_jobs(self) -> tuple[JobInHand, ...]:
        held = self.jobs.holding() if self.jobs is not None else ()
        for job in [job for job in self._since_s if job not in held]:
            del self._since_s[job]
            if job.end is not None and not job.is_lost:
                self._ends.append((job.job, job.end.error or str(job.end.kind)))
        for job in held:
            self._since_s.setdefault(job, monotonic_s())
        return held

    @asynccontextmanager
    async def on_screen(self) -> AsyncIterator[None]:
        """Show it for as long as the context lasts."""
        from rich.console import Console
        from rich.live import Live

        # A record of a job that goes on must not be cut by the next refresh: both go through one console.
        with Live(self.render(), console=Console(stderr=True), auto_refresh=False, redirect_stdout=False) as live:
            set_up_logging(shown())
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._refresh, lambda: live.update(self.render(), refresh=True))
                    yield
                    tasks.cancel_scope.cancel()
            finally:
                live.update("")
        set_up_logging(shown())

    async def _refresh(self, show: Callable[[], None]) -> None:
        seen = 0
        while True:
            show()
            await sleep_s(_REFRESH_S)
            with anyio.move_on_after(_TICK_S):
                if self.jobs is not None:
                    seen = await self.jobs.changed(seen)
                else:
                    await sleep_s(_TICK_S)


@asynccontextmanager
async def watched(server: str, runner: str) -> AsyncIterator[RunnerLog]:
    """Yield who shows what happens: a view where standard error is a terminal, else lines of log."""
    if shown() >= Verbosity.ERROR or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield RunnerLog(server, runner)
        return
    view = RunnerView(server, runner)
    async with view.on_screen():
        yield view


def _state(job: JobInHand) -> str:
    if job.end is not None:
        return f"{job.end.kind}: being sent"
    if job.canceled_because is not None:
        return "being stopped"
    if job.phase is None:
        return "waiting to start"
    phase, iteration = job.phase
    return f"{phase} of iteration {iteration}" if iteration else str(phase)
