"""The self-test of a host: runs scenarios in a sandbox, from images packed on the spot, without a network."""

from __future__ import annotations

import platform
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from signal import SIGTERM

import anyio

from metalmark.host import read_topology
from metalmark.model import Canceled, InputError, JobSpec, MetalmarkError, Phase, RunResult, SandboxName
from metalmark.oci import ImageCache, RegistryAccess
from metalmark.runner.context import ChosenSandbox, ExecutionContext, Sandboxes
from metalmark.runner.executor import RunRecord, execute
from metalmark.runner.fault_of import as_metalmark_error
from metalmark.runner.observer import RunObserver
from metalmark.runner.real_surroundings import CachedImages
from metalmark.runner.selftest_images import ImageShop
from metalmark.runner.selftest_scenario import Scenario, Seen, Unexpected
from metalmark.runner.selftest_scenarios_images import IMAGE_SCENARIOS
from metalmark.runner.selftest_scenarios_limits import LIMIT_SCENARIOS
from metalmark.runner.selftest_scenarios_run import RUN_SCENARIOS
from metalmark.runner.stop_request import StopRequest, Urgency
from metalmark.sandbox import DriverSettings
from metalmark.system import in_thread, monotonic_s, sleep_s

SCENARIOS: tuple[Scenario, ...] = (*IMAGE_SCENARIOS, *RUN_SCENARIOS, *LIMIT_SCENARIOS)
"""All scenarios in the order in which they are run."""
_SCENARIO_LIMIT_S = 300.0


class Mark(StrEnum):
    """How a scenario ended."""

    PASS = "pass"  # noqa: S105  # not a password
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, kw_only=True)
class ScenarioResult:
    """One scenario's end."""

    name: str
    mark: Mark
    reason: str = ""
    """Why it failed or was skipped."""
    duration_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class SelftestReport:
    """The whole self-test."""

    sandbox: SandboxName
    accelerator: str
    choice: str
    """Why this sandbox."""
    results: tuple[ScenarioResult, ...]

    @property
    def failed(self) -> bool:
        """Whether any scenario failed."""
        return any(result.mark is Mark.FAIL for result in self.results)


@dataclass(frozen=True, kw_only=True)
class SelftestRequest:
    """What to test."""

    settings: DriverSettings
    sandboxes: Sandboxes
    sandbox: SandboxName | None = None
    names: Sequence[str] = ()
    """Scenarios to run; none: all."""
    chosen: Callable[[ChosenSandbox], None] = field(default=lambda _sandbox: None)
    """Told which sandbox is tested."""
    ended: Callable[[ScenarioResult], None] = field(default=lambda _result: None)
    """Told how each scenario ended."""
    parallel: int = 1
    """Scenarios that are run at the same time. More than one is for tests: boxes disturb each other's times."""
    stop: StopRequest = field(default_factory=StopRequest)


def select(names: Sequence[str]) -> tuple[Scenario, ...]:
    """Return the scenarios of these names, in their own order; none: all.

    Raises:
        InputError: There is no such scenario.
    """
    known = {scenario.name for scenario in SCENARIOS}
    for name in names:
        if name not in known:
            raise InputError(
                "--scenario", name, "there is no such scenario", hint="see `metalmark host selftest --list`"
            )
    return tuple(scenario for scenario in SCENARIOS if not names or scenario.name in names)


@dataclass(frozen=True, kw_only=True)
class _Bench:
    request: SelftestRequest
    sandbox: ChosenSandbox
    shop: ImageShop
    cache: ImageCache


async def run_selftest(request: SelftestRequest) -> SelftestReport:
    """Run scenarios one after another.

    Raises:
        InputError: A name is unknown.
        SandboxUnavailable: The sandbox that was asked for does not work here.
        ToolMissing: The self-test program is not in this installation.
    """
    scenarios = select(request.names)
    sandbox = await request.sandboxes.choose(request.sandbox)
    request.chosen(sandbox)
    folder = Path(await in_thread(lambda: tempfile.mkdtemp(prefix="metalmark-selftest-")))
    results: list[ScenarioResult] = []
    try:
        shop = ImageShop(folder=folder / "images")
        cache = ImageCache(folder / "cache")
        bench = _Bench(request=request, sandbox=sandbox, shop=shop, cache=cache)
        try:
            await in_thread(shop.open)
            waiting = iter(scenarios)
            async with anyio.create_task_group() as tasks:
                for _ in range(max(1, request.parallel)):
                    tasks.start_soon(_run_some, waiting, bench, results)
        finally:
            cache.close()
    finally:
        with anyio.CancelScope(shield=True):
            await in_thread(lambda: shutil.rmtree(folder, ignore_errors=True))
    return SelftestReport(
        sandbox=sandbox.name, accelerator=str(sandbox.accelerator or ""), choice=sandbox.reason, results=tuple(results)
    )


async def _run_some(waiting: Iterator[Scenario], bench: _Bench, results: list[ScenarioResult]) -> None:
    for scenario in waiting:
        if bench.request.stop.requested:
            return
        result = await _run_scenario(scenario, bench)
        results.append(result)
        bench.request.ended(result)


async def _run_scenario(scenario: Scenario, bench: _Bench) -> ScenarioResult:
    if reason := why_skipped(scenario, bench.sandbox.name, len(read_topology().allowed)):
        return ScenarioResult(name=scenario.name, mark=Mark.SKIP, reason=reason)
    began_s = monotonic_s()
    mark, reason = Mark.FAIL, f"it did not end within {_SCENARIO_LIMIT_S:g} s"
    with anyio.move_on_after(_SCENARIO_LIMIT_S):
        mark, reason = await _judge(scenario, bench)
    return ScenarioResult(name=scenario.name, mark=mark, reason=reason, duration_s=monotonic_s() - began_s)


def why_skipped(scenario: Scenario, sandbox: SandboxName, cpus: int) -> str:
    """Return why a scenario means nothing here; empty when it does."""
    if sandbox not in scenario.sandboxes:
        return scenario.elsewhere
    if scenario.machine and scenario.machine != platform.machine():
        return f"it is about {scenario.machine}"
    if cpus < scenario.cpus:
        return f"it needs {scenario.cpus} CPUs, and there are {cpus}"
    return ""


async def _judge(scenario: Scenario, bench: _Bench) -> tuple[Mark, str]:
    token = secrets.token_hex(8)
    spool = Path(tempfile.mkdtemp(prefix="spool-", dir=bench.shop.folder.parent))
    try:
        image = await _image(scenario, bench.shop, token)
        record = await _run(replace(scenario.spec, image=image, sandbox=bench.sandbox.name), scenario, bench, spool)
        seen = Seen(record=record, sandbox=bench.sandbox.name, token=token)
        if kind := _tolerated(scenario, seen.result):
            return Mark.SKIP, kind
        scenario.check(seen)
    except Unexpected as error:
        return Mark.FAIL, str(error)
    except Exception as error:  # noqa: BLE001  # whatever goes wrong, the other scenarios have their turn
        known = as_metalmark_error(error)
        return (Mark.SKIP if type(known).__name__ in scenario.tolerates else Mark.FAIL), _told(known)
    finally:
        with anyio.CancelScope(shield=True):
            await in_thread(lambda: shutil.rmtree(spool, ignore_errors=True))
    return Mark.PASS, ""


async def _image(scenario: Scenario, shop: ImageShop, token: str) -> str:
    config, name = scenario.image_config(token), scenario.name.replace("_", "-")
    match scenario.image:
        case "layered":
            return await shop.layered(name, config)
        case "dynamic":
            return await shop.dynamic(name)
        case _:
            return await shop.basic(name, config)


async def _run(spec: JobSpec, scenario: Scenario, bench: _Bench, spool: Path) -> RunRecord:
    stop, observer = StopRequest(), _Starts()
    context = ExecutionContext(
        images=CachedImages(bench.cache, RegistryAccess()),
        sandboxes=_Fixed(bench.sandbox),
        folders=bench.request.settings.folders,
        spool=spool,
        topology=read_topology(),
        stop=stop,
    )
    record: RunRecord | None = None
    async with anyio.create_task_group() as tasks:
        if scenario.cancel_after_s is not None:
            tasks.start_soon(_cancel, observer.started, scenario.cancel_after_s, stop)
        with bench.request.stop.cancelling(tasks.cancel_scope, at=Urgency.POLITE):
            record = await execute(spec, context=context, observer=observer)
        tasks.cancel_scope.cancel()
    if record is None:
        raise Canceled("the self-test was stopped")
    return record


async def _cancel(started: anyio.Event, after_s: float, stop: StopRequest) -> None:
    await started.wait()
    await sleep_s(after_s)
    stop.request(int(SIGTERM))


def _tolerated(scenario: Scenario, result: RunResult) -> str:
    errors = [result.error, *(iteration.error for iteration in result.iterations)]
    return next((error.message for error in errors if error is not None and error.type in scenario.tolerates), "")


def _told(error: MetalmarkError) -> str:
    return f"{error} ({error.hint})" if error.hint else str(error)


class _Starts(RunObserver):
    def __init__(self) -> None:
        self.started = anyio.Event()

    def phase_started(self, phase: Phase, iteration: int) -> None:
        del iteration
        if phase is Phase.EXEC:
            self.started.set()


class _Fixed:
    """Chooses what was chosen before, so that a probe is not repeated for every scenario."""

    def __init__(self, sandbox: ChosenSandbox) -> None:
        self._sandbox = sandbox

    async def choose(self, requested: SandboxName | None) -> ChosenSandbox:
        del requested
        return self._sandbox
