"""Executes a job: image, root file system, then one fresh box an iteration; the result says how each of them ended."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import anyio

import metalmark
from metalmark.host import Placement, place
from metalmark.model import (
    EXIT_SIGNAL_BASE,
    Canceled,
    Fault,
    HostResult,
    ImageResult,
    InputError,
    JobSpec,
    LimitsResult,
    MetalmarkError,
    Outcome,
    Phase,
    Plan,
    Process,
    RunResult,
    exit_code,
    plan,
    resolve_process,
)
from metalmark.runner.context import ChosenSandbox, ExecutionContext, RunImage
from metalmark.runner.fault_of import as_metalmark_error
from metalmark.runner.iteration import Bench, IterationRecord, run_iteration
from metalmark.runner.observer import RunObserver
from metalmark.runner.outcome_of import error_result
from metalmark.runner.phase_clock import PhaseClock
from metalmark.runner.stop_request import Urgency
from metalmark.sandbox import Accelerator
from metalmark.system import bound_to, in_thread, realtime_ns


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A finished run: its result without the output itself, and the records that say where that is."""

    result: RunResult
    iterations: tuple[IterationRecord, ...] = ()


class _Run:
    """One run in progress."""

    def __init__(self, spec: JobSpec, context: ExecutionContext, observer: RunObserver) -> None:
        self.spec = spec
        self.context = context
        self.observer = observer
        self.clock = PhaseClock()
        self.started_at = datetime.fromtimestamp(realtime_ns() / 1e9, UTC).isoformat(timespec="milliseconds")
        self.steps: Plan = plan(spec, seed=context.seed)
        self.chosen: ChosenSandbox | None = None
        self.placement: Placement | None = None
        self.image: RunImage | None = None
        self.process: Process | None = None
        self.records: list[IterationRecord] = []
        self.error: MetalmarkError | None = None

    async def carry_out(self) -> None:
        """Do everything; what goes wrong before the first iteration is kept in `error`."""
        if not self.steps.steps:
            return
        try:
            await self._prepare_and_run()
        except InputError:
            raise
        except Exception as error:  # whatever went wrong is this run's outcome
            self.error = as_metalmark_error(error)
            if isinstance(self.error, InputError):
                raise self.error from error

    async def _prepare_and_run(self) -> None:
        spec, context, observer = self.spec, self.context, self.observer
        placement = place(context.topology, vcpus=spec.resources.vcpus, requested=spec.cpus, in_use=context.cpus_in_use)
        self.placement = placement
        for warning in placement.warnings:
            observer.warned(warning)
        with anyio.CancelScope() as scope, context.stop.cancelling(scope, at=Urgency.POLITE):
            self.chosen = await context.sandboxes.choose(spec.sandbox)
            observer.chosen(self.chosen)
            observer.phase_started(Phase.PULL, 0)
            with self.clock.phase(Phase.PULL, limit_s=context.deadlines.pull_s):
                self.image = await context.images.pull(spec, observer.progress)
            self.process = resolve_process(self.image.config, spec.overrides)
        if scope.cancelled_caught:
            raise Canceled("stopped while the image was pulled")
        assert self.image is not None
        await self._with_rootfs(self.image)

    async def _with_rootfs(self, image: RunImage) -> None:
        context, spec = self.context, self.spec
        holding = context.images.open_rootfs(
            image, mode=spec.rootfs, disk_bytes=spec.resources.disk_bytes, progress=self.observer.progress
        )
        self.observer.phase_started(Phase.ROOTFS, 0)
        with anyio.CancelScope() as scope, context.stop.cancelling(scope, at=Urgency.POLITE):
            with self.clock.phase(Phase.ROOTFS, limit_s=context.deadlines.rootfs_s):
                rootfs = await holding.__aenter__()
        if scope.cancelled_caught:
            raise Canceled("stopped while the root file system was built")
        try:
            assert self.chosen is not None
            assert self.placement is not None
            assert self.process is not None
            bench = Bench(
                spec=spec,
                process=self.process,
                driver=self.chosen.driver,
                root=rootfs.path,
                placement=self.placement,
                context=context,
                observer=self.observer,
            )
            with bound_to(self.placement.helper_cpus if self.placement.isolated else ()):
                await self._iterate(bench)
        finally:
            with anyio.CancelScope(shield=True):
                await holding.__aexit__(None, None, None)

    async def _iterate(self, bench: Bench) -> None:
        for step in self.steps.steps:
            record = await run_iteration(bench, step)
            self.records.append(record)
            self.observer.iteration_ended(record.result)
            if not self.context.keep_output:
                await in_thread(_remove, record.folder)
            if self._ends_the_run(record) or self.context.stop.requested:
                return

    def _ends_the_run(self, record: IterationRecord) -> bool:
        result = record.result
        if result.outcome is Outcome.CANCELED:
            return True
        if result.outcome is Outcome.INFRASTRUCTURE and (result.error is None or result.error.fault is Fault.STABLE):
            return True
        return result.exit_code != 0 and not self.spec.allow_failure

    def record(self) -> RunRecord:
        """Return what has happened."""
        result = RunResult(
            metalmark_version=metalmark.__version__,
            started_at=self.started_at,
            image=self._image_result(),
            command=self.process.argv if self.process else (),
            host=self._host_result(),
            limits=self._limits_result(),
            seed=self.steps.seed,
            verdict="emulated" if self._accelerator() is Accelerator.TCG else "measured",
            phases=self.clock.results(),
            iterations=tuple(record.result for record in self.records),
            exit_code=self._exit_code(),
            error=error_result(self.error) if self.error else None,
        )
        return RunRecord(result=result, iterations=tuple(self.records))

    def _exit_code(self) -> int:
        stop = self.context.stop
        if isinstance(self.error, Canceled):
            return EXIT_SIGNAL_BASE + stop.signal
        if self.error is not None:
            return exit_code(Outcome.INFRASTRUCTURE)
        excused = {o for o in Outcome if o not in (Outcome.CANCELED, Outcome.INFRASTRUCTURE)}
        for record in self.records:
            if record.result.exit_code and not (self.spec.allow_failure and record.result.outcome in excused):
                return record.result.exit_code
        # Stopped between two iterations: what was asked for was not all done.
        if stop.requested and len(self.records) < len(self.steps.steps):
            return EXIT_SIGNAL_BASE + stop.signal
        return 0

    def _accelerator(self) -> Accelerator | None:
        for record in self.records:
            if record.facts is not None:
                return record.facts.accelerator
        return self.chosen.accelerator if self.chosen else None

    def _image_result(self) -> ImageResult | None:
        if self.image is None:
            return None
        return ImageResult(reference=self.spec.image, digest=str(self.image.digest), platform=str(self.image.platform))

    def _host_result(self) -> HostResult | None:
        if self.chosen is None or self.placement is None:
            return None
        facts = next((record.facts for record in self.records if record.facts is not None), None)
        seen = [warning for record in self.records if record.facts for warning in record.facts.warnings]
        return HostResult(
            sandbox=self.chosen.name.value,
            accelerator=str(self._accelerator() or ""),
            reason=self.chosen.reason,
            rootfs=self.spec.rootfs.value,
            kernel=facts.kernel if facts else "",
            cpus=self.placement.cpus,
            helper_cpus=self.placement.helper_cpus,
            details=dict(facts.details) if facts else {},
            warnings=tuple(dict.fromkeys((*self.placement.warnings, *seen))),
        )

    def _limits_result(self) -> LimitsResult:
        resources = self.spec.resources
        return LimitsResult(
            vcpus=resources.vcpus,
            memory_bytes=resources.memory_bytes,
            disk_bytes=resources.disk_bytes,
            pids=resources.pids,
            timeout_s=self.spec.timeout_s,
            network=self.spec.network,
        )


async def execute(spec: JobSpec, *, context: ExecutionContext, observer: RunObserver) -> RunRecord:
    """Execute a job.

    Faults are part of the result and not raised: those of an iteration are its outcome, and what kept the run from
    starting is the result's ``error``.

    Raises:
        InputError: Something in the spec cannot be used on this machine; nothing was run.
    """
    run = _Run(spec, context, observer)
    await run.carry_out()
    return run.record()


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
