"""One iteration: a fresh box, the command in it, and what came out."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from signal import SIGKILL, SIGTERM

import anyio
import structlog

from metalmark.host import Placement
from metalmark.model import (
    BadBoot,
    BoxLost,
    Canceled,
    FileResult,
    FilesResult,
    IterationResult,
    JobSpec,
    MetalmarkError,
    Phase,
    Process,
    ProtocolError,
    RootfsMode,
    Step,
)
from metalmark.runner.context import ExecutionContext
from metalmark.runner.fault_of import as_metalmark_error
from metalmark.runner.observer import RunObserver
from metalmark.runner.outcome_of import Verdict, error_result, verdict_of_end, verdict_of_error
from metalmark.runner.output_files import CollectedFiles, TarSpool, unpack_outputs
from metalmark.runner.output_spool import OutputSpool
from metalmark.runner.phase_clock import PhaseClock
from metalmark.runner.stop_request import Urgency
from metalmark.runner.writable_root import clone_root
from metalmark.sandbox import Box, BoxFacts, BoxRecord, BoxSpec, Driver, Execution
from metalmark.system import in_thread
from metalmark.wire import Exec, Exited, Get

_SIGNAL_ANSWER_S = 2.0
_BOOTS = 3
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all iterations of a run share."""

    spec: JobSpec
    process: Process
    driver: Driver
    root: Path
    """The cached root file system."""
    placement: Placement
    context: ExecutionContext
    observer: RunObserver


@dataclass(kw_only=True)
class _Course:
    """What has happened in an iteration so far."""

    exited: Exited | None = None
    started: bool = False
    timed_out: bool = False
    canceled_by: int | None = None
    error: MetalmarkError | None = None
    collected: CollectedFiles = field(default_factory=CollectedFiles)
    facts: BoxFacts | None = None


@dataclass(frozen=True, kw_only=True)
class IterationRecord:
    """A finished iteration: its result without the output itself, and where that is."""

    result: IterationResult
    folder: Path
    """Holds ``stdout``, ``stderr`` and the numbered files of `collected`."""
    collected: CollectedFiles
    facts: BoxFacts | None
    """None when no box could be started."""


async def run_iteration(bench: Bench, step: Step) -> IterationRecord:
    """Run one iteration to its end, whatever that is; raises nothing of Metalmark's own."""
    folder = bench.context.spool / f"{step.iteration}-{step.variant}"
    clock, course = PhaseClock(), _Course()
    tap = partial(bench.context.tap, step.iteration) if bench.context.tap is not None else None
    with OutputSpool(folder, bench.spec.output_limits, tap=tap) as spool:
        async with _forwarding(bench.context, spool):
            await _run_to_the_end(bench, step, clock, course, spool)
            spool.end()
        streams = spool.results(course.exited)
    verdict = _verdict(bench, course)
    ran = course.exited if verdict.ran else None
    stdout, stderr = streams
    result = IterationResult(
        iteration=step.iteration,
        variant=step.variant,
        outcome=verdict.outcome,
        exit_code=verdict.exit_code,
        signal=verdict.signal,
        wall_s=(ran.ended_ns - ran.started_ns) / 1e9 if ran else None,
        user_s=ran.user_us / 1e6 if ran else None,
        system_s=ran.system_us / 1e6 if ran else None,
        memory_peak_bytes=ran.memory_peak_bytes or None if ran else None,
        stdout=stdout,
        stderr=stderr,
        output=_files_result(course.collected),
        phases=clock.results(),
        error=verdict.error,
    )
    return IterationRecord(result=result, folder=folder, collected=course.collected, facts=course.facts)


async def _run_to_the_end(bench: Bench, step: Step, clock: PhaseClock, course: _Course, spool: OutputSpool) -> None:
    stop = bench.context.stop
    with anyio.CancelScope() as scope, stop.cancelling(scope, at=Urgency.FORCED):
        try:
            await _run_in_good_box(bench, step, clock, course, spool)
        except Exception as error:  # noqa: BLE001  # whatever went wrong is this iteration's outcome
            course.error = as_metalmark_error(error)
    if scope.cancelled_caught and course.canceled_by is None:
        course.canceled_by = stop.signal


async def _run_in_good_box(bench: Bench, step: Step, clock: PhaseClock, course: _Course, spool: OutputSpool) -> None:
    for _ in range(_BOOTS - 1):
        try:
            await _run_in_box(bench, step, clock, course, spool)
        except BadBoot as error:
            _log.warning("booting again", iteration=step.iteration, error=str(error))
        else:
            return
    await _run_in_box(bench, step, clock, course, spool)


async def _run_in_box(bench: Bench, step: Step, clock: PhaseClock, course: _Course, spool: OutputSpool) -> None:
    limits = bench.context.deadlines
    with BoxRecord.open(bench.context.folders, f"run-{secrets.token_hex(6)}") as box_record:
        workspace = box_record.workspace
        async with _stoppable(bench, course):
            root = bench.root
            if bench.spec.rootfs is RootfsMode.EXT4:
                with clock.phase(Phase.ROOTFS, limit_s=limits.rootfs_s):
                    root = await clone_root(root, box_record.disk, size_bytes=bench.spec.resources.disk_bytes)
        spec = _box_spec(bench, box_record, root)
        async with bench.driver.create(spec) as box:
            try:
                async with _stoppable(bench, course):
                    bench.observer.phase_started(Phase.SPAWN, step.iteration)
                    await _start(box, limits.start_s)
                course.facts = box.facts
                bench.observer.phase_started(Phase.EXEC, step.iteration)
                with clock.phase(Phase.EXEC):
                    await _run_command(bench, box, course, spool)
                bench.observer.phase_started(Phase.COLLECT, step.iteration)
                with clock.phase(Phase.COLLECT, limit_s=limits.collect_s):
                    await _collect(bench, box, course, spool.folder)
                    await box.stop()
                course.facts = box.facts  # what shows only over a box's life, such as a clock that drifts, is in now
            finally:
                clock.add(box.phases)
                _keep_console_log(bench, workspace, spool.folder)


async def _start(box: Box, limit_s: float) -> None:
    with anyio.move_on_after(limit_s) as scope:
        await box.start()
    if scope.cancelled_caught:
        raise BoxLost(f"the box did not start within {limit_s:g} s", hint="see `metalmark host doctor`")


async def _run_command(bench: Bench, box: Box, course: _Course, spool: OutputSpool) -> None:
    spec, stop = bench.spec, bench.context.stop
    request = Exec(
        argv=bench.process.argv,
        env=bench.process.env,
        workdir=bench.process.workdir,
        user=bench.process.user,
        hold=not spec.live,
        stream_bytes=spec.output_limits.stream_bytes,
        grace_ms=round(spec.grace_s * 1000),
    )
    execution: Execution | None = None
    course.started = True
    with anyio.CancelScope() as patience, stop.cancelling(patience, at=Urgency.POLITE):
        execution = await box.exec(request, spool.take)
        await _launched(execution, bench.context.deadlines.launch_s)
        # The time of a benchmark is not what a busy machine takes to start it.
        patience.deadline = anyio.current_time() + spec.timeout_s
        course.exited = await execution.wait()
    if course.exited is not None:
        return
    if stop.requested:
        course.canceled_by = stop.signal
    else:
        course.timed_out = True
    if execution is not None:
        course.exited = await _end_command(execution, spec.grace_s, bench.context.deadlines.kill_s)


async def _launched(execution: Execution, limit_s: float) -> None:
    with anyio.move_on_after(limit_s) as scope:
        await execution.started()
    if scope.cancelled_caught:
        raise BoxLost(f"the command did not start within {limit_s:g} s")


async def _end_command(execution: Execution, grace_s: float, kill_s: float) -> Exited | None:
    """Ask a command to end, then make it; None when the agent does not answer any more."""
    for number, patience_s in ((SIGTERM, grace_s), (SIGKILL, kill_s)):
        with suppress(BoxLost, ProtocolError):
            with anyio.move_on_after(_SIGNAL_ANSWER_S):
                await execution.signal(number)
            with anyio.move_on_after(patience_s):
                return await execution.wait()
    return None


async def _collect(bench: Bench, box: Box, course: _Course, folder: Path) -> None:
    spec = bench.spec
    if not spec.outputs or (course.exited is None and (course.timed_out or course.canceled_by is not None)):
        return
    limits = spec.output_limits
    spool = TarSpool(folder / "files.tar", limits)
    request = Get(
        patterns=spec.outputs, workdir=bench.process.workdir, max_bytes=limits.files_bytes, max_files=limits.file_count
    )
    try:
        done = await box.copy_out(request, spool.take)
    finally:
        spool.close()
    truncated = done.truncated or spool.overflowed
    # Of what the box says, only what it was asked for.
    missing = tuple(pattern for pattern in spec.outputs if pattern in done.missing)
    course.collected = await in_thread(
        lambda: unpack_outputs(spool.path, folder / "files", limits, missing=missing, truncated=truncated)
    )
    spool.path.unlink()


@asynccontextmanager
async def _stoppable(bench: Bench, course: _Course) -> AsyncIterator[None]:
    """Let a polite request to stop end what happens inside, where there is no command yet to be ended."""
    stop = bench.context.stop
    with anyio.CancelScope() as scope, stop.cancelling(scope, at=Urgency.POLITE):
        yield
    if scope.cancelled_caught:
        course.canceled_by = stop.signal
        raise Canceled("stopped before the command was started")


@asynccontextmanager
async def _forwarding(context: ExecutionContext, spool: OutputSpool) -> AsyncIterator[None]:
    if context.live is None:
        yield
        return
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_forward_until_forced, context, spool)
        yield


async def _forward_until_forced(context: ExecutionContext, spool: OutputSpool) -> None:
    assert context.live is not None
    with anyio.CancelScope() as scope, context.stop.cancelling(scope, at=Urgency.FORCED):
        await context.live.forward(spool)


def _box_spec(bench: Bench, record: BoxRecord, root: Path) -> BoxSpec:
    return BoxSpec(
        name=record.name,
        root=root,
        rootfs=bench.spec.rootfs,
        workspace=record.workspace,
        disk_folder=record.disk,
        resources=bench.spec.resources,
        cpus=bench.placement.cpus,
        helper_cpus=bench.placement.helper_cpus,
        network=bench.spec.network,
        debug_boot=bench.context.debug_boot,
    )


def _keep_console_log(bench: Bench, workspace: Path, folder: Path) -> None:
    log = workspace / "console.log"
    if bench.context.debug_boot and log.exists():
        kept = folder / "console.log"
        shutil.copyfile(log, kept)
        bench.observer.debug_log(kept)


def _verdict(bench: Bench, course: _Course) -> Verdict:
    if course.error is not None and course.canceled_by is None and not course.timed_out:
        return verdict_of_error(course.error)
    verdict = verdict_of_end(
        course.exited, argv=bench.process.argv, timed_out=course.timed_out, canceled_by=course.canceled_by
    )
    if course.error is None or isinstance(course.error, Canceled):
        return verdict
    return Verdict(
        outcome=verdict.outcome, exit_code=verdict.exit_code, signal=verdict.signal, error=error_result(course.error)
    )


def _files_result(collected: CollectedFiles) -> FilesResult:
    files = tuple(
        FileResult(path=_shown(file.path), size_bytes=file.size_bytes, sha256=file.sha256) for file in collected.files
    )
    return FilesResult(files=files, missing=tuple(map(_shown, collected.missing)), truncated=collected.truncated)


def _shown(path: str) -> str:
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
