"""Watches a job on a server from submission to end: queue, phases, output, interrupts, outcome, exit code."""

from __future__ import annotations

import base64
import binascii
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from signal import SIG_IGN, SIGHUP, SIGINT, SIGTERM, Signals, getsignal
from typing import TYPE_CHECKING

import anyio

from metalmark.cli.errors import tell
from metalmark.cli.job_logs import JobLog
from metalmark.cli.remote import say, warn
from metalmark.cli.view import write_out
from metalmark.model import (
    EXIT_SIGNAL_BASE,
    FINAL_STATUSES,
    JobEnd,
    MetalmarkError,
    RequestRefused,
    StableError,
    read_job_end,
)
from metalmark.system import sleep_s

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from metalmark.cli.ordered_output import OrderedOutput
    from metalmark.client import JsonValue, ServerEvent, ServerSession

_POLL_S = 2.0
_READ_WITHIN_S = 60.0
"""How long results may lie unread at the server before this stops waiting for that."""
_STDIN = 0


async def watch(
    server: ServerSession,
    report: Mapping[str, JsonValue],
    *,
    output: OrderedOutput,
    allow_failure: bool,
    as_json: bool,
) -> int:
    """Follow the job of a report to its end and return the exit code of the command.

    Args:
        server: Where the job is.
        report: As the server answered the run.
        output: Where all goes that is written to standard output and error.
        allow_failure: Whether failed iterations are passed over.
        as_json: Print one JSON object at the end; what the job prints goes to standard error.

    Raises:
        MetalmarkError: The server cannot be followed any more; the job goes on.
    """
    watched = _WatchedJob(server, report, output, as_json=as_json)
    say(f"job {watched.job} of project {watched.project}")

    async def tell_all() -> int:
        from metalmark.render import job_table

        job = await watched.to_the_end()
        end = read_job_end(job, allow_failure=allow_failure, stopped_by=watched.stopped_by or SIGINT)
        if as_json:
            told = {"report": await watched.report(), "job": job, "exit_code": end.exit_code}
            write_out(json.dumps(told, indent=2) + "\n")
        _tell_error(end)
        say(job_table(end).rstrip("\n"))
        await output.written()
        return end.exit_code

    return await watched.heeding_signals(tell_all)


def _tell_error(end: JobEnd) -> None:
    if end.status == "processed" or not end.error:
        return
    # An iteration's own error is in its line of the table.
    tell(StableError(f"the job is {end.status}", why=end.error))


class _WatchedJob:
    def __init__(
        self, server: ServerSession, report: Mapping[str, JsonValue], output: OrderedOutput, *, as_json: bool
    ) -> None:
        found = report.get("project")
        project = found.get("slug") if isinstance(found, Mapping) else None
        self.project = str(project)
        self.job = str(report.get("job"))
        self.stopped_by = 0
        """The signal that the job was canceled for; 0 while it was not."""
        self._report = report
        self._server = server
        self._output = output
        self._log = JobLog(as_json=False, say=say, stdout=sys.stderr if as_json else None)
        self._hung_up = False
        self._asking = False

    async def heeding_signals(self, watch: Callable[[], Awaitable[int]]) -> int:
        """Return the exit code that watching the job comes to, or that of whoever leaves it before."""
        code: int | None = None
        failure: MetalmarkError | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._heed, tasks)
            try:
                code = await watch()
            except MetalmarkError as error:
                # Raised outside the task group, which would wrap it.
                failure = error
            tasks.cancel_scope.cancel()
        self._log.close()
        if failure is not None:
            raise self._with_hint(failure)
        return self._left_with() if code is None else code

    def _left_with(self) -> int:
        """Say how to find the job again, and return the exit code of whoever leaves it."""
        if self.stopped_by:
            return EXIT_SIGNAL_BASE + self.stopped_by
        say(f"the job goes on; follow it with: metalmark job logs --follow {self.project} {self.job}")
        return EXIT_SIGNAL_BASE + SIGHUP if self._hung_up else 0

    async def report(self) -> JsonValue:
        """Return the report as it is now; as it was submitted when that cannot be had."""
        try:
            return (
                await self._server.call("GET", "projects", self.project, "reports", str(self._report["uuid"]))
            ).value
        except MetalmarkError:
            return dict(self._report)

    async def to_the_end(self) -> JsonValue:
        """Tell what happens to the job, and return it after its end."""
        job = await self._followed()
        self._log.close()
        return job

    async def _followed(self) -> JsonValue:
        if self._server.settings.credential is None:
            return await self._polled()
        try:
            await self._server.follow(
                "projects", self.project, "jobs", self.job, "output", query={"follow": True}, on_event=self._take
            )
        except RequestRefused as error:
            if error.status not in (401, 404, 429):
                raise
            # A server without live output, for others only, or for no more: the job's end is to be seen all the same.
            return await self._polled()
        return await self._read()

    async def _take(self, event: ServerEvent) -> bool:
        is_last = False
        # Whoever reads no more wants no more output; the outcome is for others.
        with suppress(SystemExit):
            is_last = self._log.take(event)
        await self._output.room()
        return is_last

    async def _read(self) -> JsonValue:
        """Wait until the results are read, which ends a job that completed."""
        job = await self._view()
        with anyio.move_on_after(_READ_WITHIN_S):
            while _status(job) not in FINAL_STATUSES:
                await sleep_s(_POLL_S / 4)
                job = await self._view()
        return job

    async def _polled(self) -> JsonValue:
        seen = ""
        while True:
            job = await self._view()
            if (now := _news(job)) != seen:
                seen = now
                say(seen)
            if _status(job) in FINAL_STATUSES:
                await self._print_output(job)
                return job
            await sleep_s(_POLL_S)

    async def _view(self) -> JsonValue:
        while True:
            try:
                return (await self._server.call("GET", "projects", self.project, "jobs", self.job)).value
            except RequestRefused as error:
                if error.status != 429:
                    raise
            await sleep_s(_POLL_S * 5)

    async def _print_output(self, job: JsonValue) -> None:
        output = job.get("output") if isinstance(job, Mapping) else None
        results = output.get("results") if isinstance(output, Mapping) else None
        for result in results if isinstance(results, Sequence) else ():
            if isinstance(result, Mapping):
                for name in ("stdout", "stderr"):
                    with suppress(SystemExit):
                        self._log.show(name, _content(result, name))
                    await self._output.room()

    async def _heed(self, tasks: TaskGroup) -> None:
        heeded = [number for number in (SIGINT, SIGTERM, SIGHUP) if getsignal(number) is not SIG_IGN]
        with anyio.open_signal_receiver(*heeded) as signals:
            async for number in signals:
                if number is SIGHUP:
                    # The terminal is gone; the job is elsewhere and needs none.
                    self._hung_up = True
                    self._output.hurry()
                    tasks.cancel_scope.cancel()
                elif self.stopped_by:
                    self._output.hurry()
                    warn("ended before the job was; it is being canceled")
                    tasks.cancel_scope.cancel()
                elif number is SIGINT and sys.stdin.isatty() and sys.stderr.isatty() and not self._asking:
                    tasks.start_soon(self._ask, tasks)
                else:
                    self._cancel(tasks, number)

    async def _ask(self, tasks: TaskGroup) -> None:
        """Ask what an interrupt is to mean; another one while it is asked cancels the job."""
        self._asking = True
        self._log.close()
        sys.stderr.write("\n[c]ancel the job, [d]etach and let it go on, or Enter to go on watching? ")
        sys.stderr.flush()
        await anyio.wait_readable(_STDIN)
        answer = os.read(_STDIN, 64).decode(errors="replace").strip().lower()
        self._asking = False
        if answer in ("d", "detach"):
            tasks.cancel_scope.cancel()
        elif answer in ("c", "cancel"):
            self._cancel(tasks, SIGINT)

    def _cancel(self, tasks: TaskGroup, number: Signals) -> None:
        self.stopped_by = int(number)
        say("canceling the job; once more to end at once")
        self._output.hurry()
        tasks.start_soon(self._send_cancel)

    async def _send_cancel(self) -> None:
        try:
            await self._server.call("POST", "projects", self.project, "jobs", self.job, "cancel", repeatable=True)
        except RequestRefused as error:
            if error.status != 409:
                tell(error)
        except MetalmarkError as error:
            tell(error)

    def _with_hint(self, error: MetalmarkError) -> MetalmarkError:
        follow = f"the job may go on: metalmark job logs --follow {self.project} {self.job}"
        error.hint = f"{error.hint}; {follow}" if error.hint else follow
        return error


def _status(job: JsonValue) -> str:
    return str(job.get("status")) if isinstance(job, Mapping) else ""


def _news(job: JsonValue) -> str:
    found = job if isinstance(job, Mapping) else {}
    pending, phase, iteration = found.get("pending"), found.get("phase"), found.get("phase_iteration")
    if isinstance(pending, Mapping):
        position = pending.get("position")
        place = f"number {position} in the queue: " if isinstance(position, int) else ""
        return f"pending, {place}{pending.get('text')}"
    if not isinstance(phase, str):
        return f"the job is {_status(job)}"
    return f"phase {phase} of iteration {iteration}" if isinstance(iteration, int) and iteration else f"phase {phase}"


def _content(result: Mapping[str, JsonValue], name: str) -> bytes:
    text, encoded = result.get(name), result.get(f"{name}_base64")
    if isinstance(encoded, str):
        try:
            return base64.b64decode(encoded, validate=True)
        except binascii.Error:
            return b""
    return text.encode("utf-8", errors="surrogatepass") if isinstance(text, str) else b""
