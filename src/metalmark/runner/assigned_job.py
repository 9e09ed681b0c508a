"""Carries out a job that a server gave, with the code of ``runner run``, and brings its end onto the disk."""

from __future__ import annotations

import shutil
import ssl
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import structlog

from metalmark.host import Topology
from metalmark.model import (
    MAX_JOB_ITERATIONS,
    Demand,
    InputError,
    JobSpec,
    MetalmarkError,
    NoSpace,
    OutputLimits,
    Phase,
    ProcessOverrides,
    Resources,
    RunResult,
    SandboxName,
    shortcomings,
)
from metalmark.oci import RegistryAccess
from metalmark.runner.assignment import Assignment
from metalmark.runner.context import ChosenSandbox, ExecutionContext, Images, Sandboxes
from metalmark.runner.cpu_shares import CpuShares
from metalmark.runner.end_document import write_document
from metalmark.runner.end_file import EndKind, EndOfJob, SpooledEnd
from metalmark.runner.executor import RunRecord, execute
from metalmark.runner.fault_of import as_metalmark_error
from metalmark.runner.job_in_hand import JobInHand
from metalmark.runner.job_verdict import end_of_run
from metalmark.runner.observer import RunObserver
from metalmark.runner.phase_clock import Deadlines
from metalmark.runner.proved_capabilities import as_capabilities
from metalmark.runner.result_spool import ByteSink, ResultSpool
from metalmark.runner.stop_request import Urgency
from metalmark.sandbox import Stream
from metalmark.system import Folders, in_thread, monotonic_s, sleep_s
from metalmark.wire import ProvedCapabilities

_POLITE_S = 0.4
"""How long a benchmark that is canceled has to end by itself: its box has to be gone within a second."""
_SMALL_OUTPUT_BYTES = 256 * 1024
"""What is less is on the disk before the next benchmark begins, and needs no upload beside it."""
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class JobSurroundings:
    """What all jobs of a runner share."""

    capabilities: ProvedCapabilities
    """What was proved; a job that needs more is refused."""
    images: Callable[[Assignment], AbstractContextManager[Images]]
    """Where the image of a job comes from. It is kept from clean-up until the context ends."""
    sandboxes: Sandboxes
    folders: Folders
    spool: Path
    """An existing private folder; each job gets one below it while it runs."""
    topology: Topology
    output_limits: OutputLimits = field(default_factory=OutputLimits)
    grace_s: float = 1.0
    deadlines: Deadlines = field(default_factory=Deadlines)


class JobExecutor:
    """Executes jobs in hand (`metalmark.runner.jobs_in_hand.Execute`).

    Args:
        spool: Where ends are kept.
        surroundings: What the jobs share.
    """

    def __init__(self, spool: ResultSpool, surroundings: JobSurroundings) -> None:
        self._spool = spool
        self._surroundings = surroundings
        self._shares = CpuShares(surroundings.topology, memory_bytes=surroundings.capabilities.memory_bytes)

    async def __call__(self, job: JobInHand) -> SpooledEnd:
        """Execute a job to its end."""
        started_s = monotonic_s()
        log = _log.bind(job=str(job.job), lease=job.lease)
        log.info("job taken", spec=None if job.assignment is None else str(job.assignment.spec.slug))
        end = await self._carried_out(job)
        log.info("job ended", end=str(end.kind), error=end.error, seconds=round(monotonic_s() - started_s, 3))
        return end

    async def _carried_out(self, job: JobInHand) -> SpooledEnd:
        assignment = job.assignment
        assert assignment is not None, "an end that was read back is not executed"
        if refused := refusal(assignment, self._surroundings.capabilities):
            return await self._bare(job, EndOfJob(kind=EndKind.FAILED, error=refused, infrastructure=True))
        try:
            await in_thread(self._spool.begin, job.job, job.lease)
        except (NoSpace, OSError) as error:
            what = "no space left" if isinstance(error, NoSpace) else error.strerror
            why = f"the runner's disk has no room for the results: {what}"
            return await self._bare(job, EndOfJob(kind=EndKind.FAILED, error=why, infrastructure=True))
        folder = self._surroundings.spool / f"{job.job}.{job.lease}"
        try:
            folder.mkdir(mode=0o700)
            return await self._executed(job, assignment, folder)
        except Exception as error:  # noqa: BLE001  # whatever went wrong is this job's end
            found = as_metalmark_error(error)
            end = EndOfJob(kind=EndKind.FAILED, error=_told(found), infrastructure=not isinstance(found, InputError))
            return await in_thread(self._spool.keep, job.job, job.lease, end, _nothing)
        finally:
            with anyio.CancelScope(shield=True):
                await in_thread(partial(shutil.rmtree, folder, ignore_errors=True))

    async def _executed(self, job: JobInHand, assignment: Assignment, folder: Path) -> SpooledEnd:
        spec = job_spec(assignment, self._surroundings)
        record: RunRecord | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_force_in_time, job)
            async with AsyncExitStack() as borrowed:
                with anyio.CancelScope() as waiting, job.stop.cancelling(waiting, at=Urgency.POLITE):
                    share = self._shares.borrowed(vcpus=spec.resources.vcpus, memory_bytes=spec.resources.memory_bytes)
                    in_use = await borrowed.enter_async_context(share)
                if not waiting.cancelled_caught:
                    with self._surroundings.images(assignment) as images:
                        context = self._context(job, images, folder, in_use)
                        record = await execute(spec, context=context, observer=_Teller(job))
            tasks.cancel_scope.cancel()
        if record is not None and _output_bytes(record.result) < _SMALL_OUTPUT_BYTES:
            # The next job is on its way while the end of this one goes to the disk.
            job.executed()
        end = _end(job, spec, record)
        if record is None:
            return await in_thread(self._spool.keep, job.job, job.lease, end, _nothing)
        write = partial(write_document, record, assignment.config, end.error)
        return await in_thread(self._spool.keep, job.job, job.lease, end, write)

    def _context(self, job: JobInHand, images: Images, folder: Path, in_use: frozenset[int]) -> ExecutionContext:
        def tap(iteration: int, stream: Stream, data: bytes) -> None:
            job.output.write(data, iteration=iteration, stream="stdout" if stream is Stream.STDOUT else "stderr")

        return ExecutionContext(
            images=images,
            sandboxes=self._surroundings.sandboxes,
            folders=self._surroundings.folders,
            spool=folder,
            topology=self._surroundings.topology,
            cpus_in_use=in_use,
            stop=job.stop,
            deadlines=self._surroundings.deadlines,
            tap=tap,
        )

    async def _bare(self, job: JobInHand, end: EndOfJob) -> SpooledEnd:
        return await in_thread(self._spool.keep_bare, job.job, job.lease, end)


class _Teller(RunObserver):
    """Keeps a job in hand up to date with its run."""

    def __init__(self, job: JobInHand) -> None:
        self._job = job
        self._log = _log.bind(job=str(job.job), lease=job.lease)

    def chosen(self, sandbox: ChosenSandbox) -> None:
        """Say which."""
        self._log.info("sandbox chosen", sandbox=sandbox.name.value, reason=sandbox.reason)

    def warned(self, text: str) -> None:
        """Say it."""
        self._log.warning(text)

    def phase_started(self, phase: Phase, iteration: int) -> None:
        """Let the server be told."""
        self._job.enter(phase, iteration)


def refusal(assignment: Assignment, capabilities: ProvedCapabilities) -> str:
    """Return why a job cannot be served here; empty when it can."""
    spec = assignment.spec
    demand = Demand(
        os=spec.os,
        architecture=spec.architecture,
        sandbox=spec.sandbox,
        vcpus=spec.cpu,
        memory_bytes=spec.memory,
        disk_bytes=spec.disk,
        network=spec.network,
    )
    found = list(shortcomings(as_capabilities(capabilities), demand))
    if spec.sandbox is None and found:
        found.append("jobs without a sandbox need a runner with --danger-allow-no-sandbox")
    if spec.sandbox == "firecracker" and spec.network:
        found.append("Firecracker has no network here")
    if (assignment.config.iter or 0) > MAX_JOB_ITERATIONS:
        found.append(f"{assignment.config.iter} iterations are more than {MAX_JOB_ITERATIONS}")
    return f"this runner cannot serve the job (spec {spec.slug}): {'; '.join(found)}" if found else ""


def job_spec(assignment: Assignment, surroundings: JobSurroundings) -> JobSpec:
    """Return what is to be executed for a job."""
    spec, config = assignment.spec, assignment.config
    registry = urlsplit(str(config.registry)).netloc
    return JobSpec(
        image=f"docker://{registry}/{config.repository or config.project}@{config.digest}",
        overrides=ProcessOverrides(entrypoint=config.entrypoint, cmd=config.cmd, env=config.env or {}),
        sandbox=_sandbox(assignment, surroundings.capabilities),
        resources=Resources(vcpus=spec.cpu, memory_bytes=spec.memory, disk_bytes=spec.disk),
        network=spec.network,
        iterations=1 if config.iter is None else config.iter,
        timeout_s=float(assignment.timeout_s),
        grace_s=surroundings.grace_s,
        allow_failure=bool(config.allow_failure),
        outputs=config.file_paths or (),
        output_limits=surroundings.output_limits,
    )


def registry_access(
    assignment: Assignment, environment: Mapping[str, str], *, tls: ssl.SSLContext | None = None
) -> RegistryAccess:
    """Return how the registry of a job is spoken to: with the job's token, and with nothing that is this machine's.

    Args:
        assignment: The job.
        environment: Where proxies and authorities are read.
        tls: How the server's own certificates are checked; None as those of any registry.
    """
    kept = {name: value for name, value in environment.items() if name.lower() in _TRANSPORT}
    own = assignment.config.repository is None
    return RegistryAccess(
        token=assignment.token if own else "",
        environment=kept,
        plain_http=urlsplit(str(assignment.config.registry)).scheme == "http",
        tls=tls if own else None,
        # What another project pulled is in the cache too.
        cached_for_all=False,
    )


_TRANSPORT = frozenset(("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ssl_cert_file", "ssl_cert_dir"))
"""Not HOME and the like: a submitter would reach what this machine's credentials open."""


def _sandbox(assignment: Assignment, capabilities: ProvedCapabilities) -> SandboxName:
    wanted = assignment.spec.sandbox
    if wanted is None:
        return SandboxName.NONE
    if wanted != "microvm":
        return SandboxName(wanted)
    prefers_firecracker = "firecracker" in capabilities.sandboxes and not assignment.spec.network
    return SandboxName.FIRECRACKER if prefers_firecracker else SandboxName.QEMU


async def _force_in_time(job: JobInHand) -> None:
    with anyio.CancelScope() as scope, job.stop.cancelling(scope, at=Urgency.POLITE):
        await anyio.sleep_forever()
    await sleep_s(_POLITE_S)
    job.stop.request()


def _end(job: JobInHand, spec: JobSpec, record: RunRecord | None) -> EndOfJob:
    if record is None:
        end = EndOfJob(kind=EndKind.CANCELED)
    else:
        end = end_of_run(
            record.result,
            iterations=spec.iterations,
            allow_failure=spec.allow_failure,
            timeout_s=spec.timeout_s,
            canceled_because=job.canceled_because,
        )
    if end.kind is EndKind.CANCELED and job.is_abandoned and not job.began:
        return EndOfJob(kind=EndKind.FAILED, error=job.canceled_because, infrastructure=True)
    return end


def _output_bytes(result: RunResult) -> int:
    """Return how much a run has printed and left in files."""
    return sum(
        iteration.stdout.kept_bytes
        + iteration.stderr.kept_bytes
        + sum(file.size_bytes for file in iteration.output.files)
        for iteration in result.iterations
    )


def _told(error: MetalmarkError) -> str:
    return f"{error} ({error.hint})" if error.hint else str(error)


def _nothing(sink: ByteSink) -> None:
    sink.write(b'{"results":[]}')
