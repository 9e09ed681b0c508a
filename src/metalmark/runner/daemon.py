"""The daemon on a benchmark machine: what joins a server's jobs, this machine, and the way out."""

from __future__ import annotations

import hashlib
import secrets
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import anyio
import structlog

import metalmark
from metalmark.client import ConnectionSettings, Trust, tls_context
from metalmark.host import format_cpu_list, read_memory, read_topology, split
from metalmark.model import OutputLimits, SandboxName
from metalmark.oci import ImageCache, RegistryAccess
from metalmark.runner.assigned_job import JobExecutor, JobSurroundings, registry_access
from metalmark.runner.assignment import Assignment
from metalmark.runner.context import Images
from metalmark.runner.jobs_in_hand import JobsInHand
from metalmark.runner.link import Link
from metalmark.runner.link_observer import LinkObserver
from metalmark.runner.proved_capabilities import ProvedMachine, prove
from metalmark.runner.real_surroundings import CachedImages
from metalmark.runner.result_spool import ResultSpool
from metalmark.runner.run_spool import spool_folder
from metalmark.runner.runner_identity import RunnerIdentity
from metalmark.runner.self_update import Restart, Updates
from metalmark.runner.session_pace import SessionPace
from metalmark.runner.stop_request import StopRequest, Urgency
from metalmark.sandbox import DriverSettings, make_driver, sweep
from metalmark.system import (
    Folders,
    boot_id,
    ensure_private,
    folders,
    in_thread,
    keep_manager_content,
    notify_manager,
)
from metalmark.wire import RunnerMetadata

_SEND_S = 30.0
"""How long a runner that is to end waits for its server to take the last results. They are kept for the next start."""
_SEND_IN_HASTE_S = 5.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class DaemonSettings:
    """What a runner was told."""

    connection: ConnectionSettings
    runner: str
    """UUID or slug at the server."""
    slots: int = 1
    drain_timeout_s: float | None = None
    """How long jobs may go on once the runner is to end; None: as long as they take."""
    allow_emulation: bool = False
    drivers: DriverSettings = field(default_factory=DriverSettings)
    """Its ``allow_none`` says whether jobs without a sandbox are served."""
    output_limits: OutputLimits = field(default_factory=OutputLimits)
    grace_s: float = 1.0
    pace: SessionPace = field(default_factory=SessionPace)


class DaemonObserver(LinkObserver):
    """Sees what happens to a daemon; this one ignores it. Subclass what matters."""

    def proved(self, machine: ProvedMachine) -> None:
        """The sandboxes were tried."""

    def started(self, jobs: JobsInHand) -> None:
        """Jobs can be taken. Their state is to be read from now on."""

    def draining(self) -> None:
        """No more jobs are taken."""


async def run_daemon(
    settings: DaemonSettings,
    *,
    environment: Mapping[str, str],
    stop: StopRequest,
    updates: Updates,
    observer: DaemonObserver | None = None,
) -> Restart | None:
    """Serve a server's jobs until told to stop.

    Args:
        settings: What the runner was told.
        environment: The process's.
        stop: The first request drains, the second cancels what runs.
        updates: What becomes of offered versions.
        observer: Is told what happens.

    Returns:
        What this process is to be replaced by, or None when it is to end.

    Raises:
        ChannelRefused: The server does not take this runner.
        Conflict: Another process of this runner is at work.
        SandboxUnavailable: This machine can run nothing.
        NoPermission, NoSpace: The folders cannot be used.
    """
    observer = observer or DaemonObserver()
    places = folders(environment)
    for place in (places.state, places.cache, places.run):
        ensure_private(place)
    await in_thread(sweep, places)
    with ExitStack() as resources:
        spool = await in_thread(lambda: resources.enter_context(ResultSpool(_results_folder(settings, places))))
        scratch = await in_thread(lambda: resources.enter_context(spool_folder(places.state / "spool")))
        machine = await _proved(settings, places)
        observer.proved(machine)
        for name, why in machine.why_not.items():
            _log.info("sandbox not used", sandbox=str(name), why=why)
        jobs = JobsInHand(spool, slots=settings.slots, left=await in_thread(spool.read_back))
        tls = await in_thread(_tls, settings.connection, environment)
        surroundings = _surroundings(
            settings, machine, places, scratch, partial(registry_access, environment=environment, tls=tls)
        )
        link = Link(
            settings=settings.connection,
            identity=_identity(settings, machine, updates),
            jobs=jobs,
            updates=updates,
            environment=environment,
            observer=observer,
            pace=settings.pace,
        )
        return await _served(
            settings,
            jobs,
            JobExecutor(spool, surroundings),
            link,
            _Outside(environment=environment, stop=stop, updates=updates, observer=observer),
        )


def _tls(connection: ConnectionSettings, environment: Mapping[str, str]) -> ssl.SSLContext | None:
    """Return how certificates of the server's registry are checked, where the runner was told whom to trust."""
    return None if connection.trust == Trust() else tls_context(connection.trust, environment)


def _surroundings(
    settings: DaemonSettings,
    machine: ProvedMachine,
    places: Folders,
    scratch: Path,
    access: Callable[[Assignment], RegistryAccess],
) -> JobSurroundings:
    # Read once: while a job runs, this process is bound to fewer CPUs than there are.
    topology = read_topology()
    if settings.slots > len(split(topology).benchmark):
        cpus = format_cpu_list(split(topology).benchmark)
        _log.warning("more slots than CPUs for benchmarks: jobs wait for each other", cpus=cpus)

    @contextmanager
    def images(assignment: Assignment) -> Iterator[Images]:
        # Each job its own: one that lived as long as the daemon would keep every image that was ever run.
        with ImageCache(places.cache) as cache:
            yield CachedImages(cache, access(assignment))

    return JobSurroundings(
        capabilities=machine.capabilities,
        images=images,
        sandboxes=machine,
        folders=places,
        spool=scratch,
        topology=topology,
        output_limits=settings.output_limits,
        grace_s=settings.grace_s,
    )


@dataclass(frozen=True, kw_only=True)
class _Outside:
    """Who tells a daemon something, and whom it tells."""

    environment: Mapping[str, str]
    stop: StopRequest
    updates: Updates
    observer: DaemonObserver


async def _served(
    settings: DaemonSettings, jobs: JobsInHand, executor: JobExecutor, link: Link, outside: _Outside
) -> Restart | None:
    restart: Restart | None = None

    async def update(scope: anyio.CancelScope) -> None:
        nonlocal restart
        restart = await outside.updates.run(jobs)
        scope.cancel()

    async def drain(scope: anyio.CancelScope) -> None:
        await _asked(outside.stop, Urgency.POLITE)
        notify_manager(outside.environment, "STOPPING=1")
        outside.observer.draining()
        await drained(jobs, outside.stop, timeout_s=settings.drain_timeout_s)
        scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keep_manager_content, outside.environment)
        tasks.start_soon(jobs.serve, executor)
        outside.observer.started(jobs)
        tasks.start_soon(link.run)
        tasks.start_soon(update, tasks.cancel_scope)
        tasks.start_soon(drain, tasks.cancel_scope)
        notify_manager(outside.environment, "READY=1")
    return restart


async def drained(jobs: JobsInHand, stop: StopRequest, *, timeout_s: float | None) -> None:
    """Take no more jobs, see those in hand through, and wait for a while until the server has their ends.

    Args:
        jobs: Those in hand.
        stop: Another request cancels what runs.
        timeout_s: After this long it is canceled too; None: it may take as long as it takes.
    """
    jobs.leave()
    with anyio.move_on_after(timeout_s) as patience, stop.cancelling(patience, at=Urgency.FORCED):
        await jobs.idle()
    if not jobs.is_idle:
        _log.warning("jobs are canceled, since the runner is to end")
        for job in jobs.holding():
            job.abandon("the runner was stopped")
        await jobs.idle()
    with anyio.move_on_after(_SEND_S) as sending, stop.cancelling(sending, at=Urgency.FORCED):
        await jobs.empty()
    if stop.urgency is Urgency.FORCED:
        with anyio.move_on_after(_SEND_IN_HASTE_S):
            await jobs.empty()
    if jobs.holding():
        _log.warning("results wait for the next start", jobs=[str(job.job) for job in jobs.holding()])


async def _asked(stop: StopRequest, urgency: Urgency) -> None:
    with anyio.CancelScope() as scope, stop.cancelling(scope, at=urgency):
        await anyio.sleep_forever()


async def _proved(settings: DaemonSettings, places: Folders) -> ProvedMachine:
    names = [name for name in SandboxName if name is not SandboxName.NONE or settings.drivers.allow_none]
    return await prove(
        [make_driver(name, settings.drivers) for name in names],
        machine=settings.drivers.machine,
        topology=read_topology(),
        memory=read_memory(),
        folders=places,
        allow_emulation=settings.allow_emulation,
    )


def _results_folder(settings: DaemonSettings, places: Folders) -> Path:
    """Each runner of each server has its own: ends are told to no other."""
    who = f"{settings.connection.address} {settings.runner}".encode()
    parent = ensure_private(places.state / "runner") / "results"
    parent.mkdir(mode=0o700, exist_ok=True)
    folder = parent / hashlib.sha256(who).hexdigest()[:16]
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _identity(settings: DaemonSettings, machine: ProvedMachine, updates: Updates) -> RunnerIdentity:
    capabilities = machine.capabilities
    metadata = RunnerMetadata(
        os=capabilities.os,
        arch=capabilities.architecture,
        version=metalmark.__version__,
        channel="stable",
        checksum=updates.checksum,
    )
    return RunnerIdentity(
        runner=settings.runner,
        version=metalmark.__version__,
        process=secrets.token_hex(16),
        boot=boot_id(),
        capabilities=capabilities,
        facts=machine.facts,
        metadata=metadata,
    )
