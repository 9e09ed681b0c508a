from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from signal import SIGKILL, SIGTERM

import pytest
from tests.unit.runner.surroundings import FakeImages, FakeSandboxes, RecordingObserver, surroundings

from metalmark.model import (
    BadBoot,
    BoxLost,
    BoxTooSmall,
    Fault,
    ImageConfig,
    ImageNotFound,
    InputError,
    JobSpec,
    MetalmarkError,
    Outcome,
    OutputLimits,
    Phase,
    ProcessOverrides,
    RegistryUnavailable,
    Resources,
    SandboxUnavailable,
)
from metalmark.runner import Deadlines, RunObserver, RunRecord, StopRequest, execute
from metalmark.sandbox import Accelerator
from metalmark.testing.fake_sandbox import FakeCommand, FakeDriver
from metalmark.wire import Ending

pytestmark = pytest.mark.anyio

Run = Callable[..., object]
SPEC = JobSpec(image="fake", grace_s=0.05, timeout_s=30)


async def run(
    folder: Path,
    *commands: FakeCommand,
    spec: JobSpec = SPEC,
    images: FakeImages | None = None,
    stop: StopRequest | None = None,
    observer: RunObserver | None = None,
    deadlines: Deadlines | None = None,
) -> tuple[RunRecord, FakeDriver]:
    driver = FakeDriver(*commands)
    context = surroundings(folder, driver, images=images, stop=stop)
    if deadlines:
        context = replace(context, deadlines=deadlines)
    record = await execute(spec, context=context, observer=observer or RunObserver())
    assert list(folder.glob("run/boxes/*")) == []
    assert all(box.removed for box in driver.boxes)
    return record, driver


async def test_good_run_has_every_figure_and_both_streams(tmp_path: Path) -> None:
    record, driver = await run(tmp_path, FakeCommand(stdout=[b"one", b"two"], stderr=[b"\xff"]))
    result = record.result
    assert (result.exit_code, result.error, result.verdict) == (0, None, "measured")
    [iteration] = result.iterations
    assert (iteration.outcome, iteration.wall_s, iteration.user_s, iteration.system_s) == (
        Outcome.EXITED, 0.5, 0.4, 0.05,
    )  # fmt: skip
    assert iteration.memory_peak_bytes == 1024 * 1024
    assert [span.phase for span in result.phases] == [Phase.PULL, Phase.ROOTFS]
    assert [span.phase for span in iteration.phases] == [
        Phase.SPAWN, Phase.KERNEL, Phase.AGENT, Phase.EXEC, Phase.COLLECT,
    ]  # fmt: skip
    assert (record.iterations[0].folder / "stdout").read_bytes() == b"onetwo"
    assert (record.iterations[0].folder / "stderr").read_bytes() == b"\xff"
    assert driver.boxes[0].stopped


async def test_placement_reaches_the_box_and_the_result(tmp_path: Path) -> None:
    record, driver = await run(tmp_path, spec=replace(SPEC, resources=Resources(vcpus=2), cpus=(2, 3)))
    assert driver.boxes[0].spec.cpus == (2, 3)
    assert driver.boxes[0].spec.helper_cpus == (0,)
    assert record.result.host is not None
    assert record.result.host.cpus == (2, 3)


async def test_more_vcpus_than_the_host_names_the_flag_and_pulls_nothing(tmp_path: Path) -> None:
    images = FakeImages()
    with pytest.raises(InputError, match="--vcpus is 5"):
        await run(tmp_path, spec=replace(SPEC, resources=Resources(vcpus=5)), images=images)
    assert images.pulls == 0


async def test_no_iterations_do_nothing_at_all(tmp_path: Path) -> None:
    images = FakeImages()
    record, driver = await run(tmp_path, spec=replace(SPEC, iterations=0), images=images)
    assert (record.result.exit_code, images.pulls, driver.boxes) == (0, 0, [])


async def test_each_iteration_has_a_fresh_box_and_the_root_is_opened_once(tmp_path: Path) -> None:
    images = FakeImages()
    record, driver = await run(tmp_path, spec=replace(SPEC, iterations=3), images=images)
    assert [it.iteration for it in record.result.iterations] == [1, 2, 3]
    assert len({box.spec.name for box in driver.boxes}) == 3
    assert (images.pulls, images.opened, images.held) == (1, 1, 0)


@pytest.mark.parametrize(
    ("allow", "ran", "status"), [(False, 2, 7), (True, 3, 0)], ids=["first failure ends it", "failures allowed"]
)
async def test_failure_of_the_second_iteration(tmp_path: Path, allow: bool, ran: int, status: int) -> None:
    commands = FakeCommand(), FakeCommand(code=7), FakeCommand()
    record, _ = await run(tmp_path, *commands, spec=replace(SPEC, iterations=3, allow_failure=allow))
    assert (len(record.result.iterations), record.result.exit_code) == (ran, status)


@pytest.mark.parametrize(
    ("command", "outcome", "code", "signal"),
    [
        (FakeCommand(code=42), Outcome.EXITED, 42, None),
        (FakeCommand(ending=Ending.SIGNALED, code=11), Outcome.SIGNALED, 139, 11),
        (FakeCommand(ending=Ending.OUT_OF_MEMORY, code=9), Outcome.OUT_OF_MEMORY, 137, 9),
        (FakeCommand(ending=Ending.NOT_FOUND, code=2), Outcome.NOT_FOUND, 127, None),
        (FakeCommand(ending=Ending.NOT_EXECUTABLE, code=13), Outcome.NOT_EXECUTABLE, 126, None),
        (FakeCommand(ending=Ending.UNKNOWN_USER, message="ghost"), Outcome.INFRASTRUCTURE, 125, None),
        (FakeCommand(ending=Ending.NO_WORKDIR, message="/gone"), Outcome.INFRASTRUCTURE, 125, None),
        (FakeCommand(ending=Ending.FAILED, code=7), Outcome.INFRASTRUCTURE, 125, None),
    ],
    ids=lambda value: str(value) if isinstance(value, Outcome) else "",
)
async def test_endings(tmp_path: Path, command: FakeCommand, outcome: Outcome, code: int, signal: int | None) -> None:
    record, _ = await run(tmp_path, command)
    [iteration] = record.result.iterations
    assert (iteration.outcome, iteration.exit_code, iteration.signal) == (outcome, code, signal)
    assert record.result.exit_code == code
    assert command.message in (iteration.error.message if iteration.error else "")
    assert (iteration.wall_s is None) == (
        outcome in {Outcome.NOT_FOUND, Outcome.NOT_EXECUTABLE, Outcome.INFRASTRUCTURE}
    )


async def test_time_out_is_polite_first_and_keeps_output(tmp_path: Path) -> None:
    record, driver = await run(
        tmp_path, FakeCommand(stdout=[b"partial"], endless=True), spec=replace(SPEC, timeout_s=0.05)
    )
    [iteration] = record.result.iterations
    assert (iteration.outcome, record.result.exit_code) == (Outcome.TIMED_OUT, 124)
    assert (record.iterations[0].folder / "stdout").read_bytes() == b"partial"
    assert driver.boxes[0].executions[0].signals == [SIGTERM]


async def test_time_out_kills_what_ignores_the_polite_signal(tmp_path: Path) -> None:
    command = FakeCommand(endless=True, ignores=frozenset({int(SIGTERM)}))
    record, driver = await run(tmp_path, command, spec=replace(SPEC, timeout_s=0.05))
    assert record.result.iterations[0].outcome is Outcome.TIMED_OUT
    assert driver.boxes[0].executions[0].signals == [SIGTERM, SIGKILL]


async def test_time_that_it_takes_to_start_a_command_is_not_the_benchmarks(tmp_path: Path) -> None:
    record, driver = await run(tmp_path, FakeCommand(starts_after_s=0.3), spec=replace(SPEC, timeout_s=0.1))
    assert record.result.iterations[0].outcome is Outcome.EXITED
    assert driver.boxes[0].executions[0].signals == []


async def test_a_command_that_does_not_start_is_a_fault_of_its_box(tmp_path: Path) -> None:
    command = FakeCommand(starts_after_s=30, endless=True)
    record, driver = await run(tmp_path, command, deadlines=Deadlines(launch_s=0.05))
    [iteration] = record.result.iterations
    assert iteration.error is not None
    assert (iteration.outcome, iteration.error.type) == (Outcome.INFRASTRUCTURE, "BoxLost")
    assert "did not start within 0.05 s" in iteration.error.message
    assert driver.boxes[0].removed


async def test_a_command_is_stopped_while_it_is_started(tmp_path: Path) -> None:
    stop = StopRequest()

    class Stopper(RunObserver):
        def phase_started(self, phase: Phase, iteration: int) -> None:
            if phase is Phase.EXEC:
                stop.request()

    command = FakeCommand(starts_after_s=30, endless=True)
    record, driver = await run(tmp_path, command, stop=stop, observer=Stopper())
    assert record.result.iterations[0].outcome is Outcome.CANCELED
    assert driver.boxes[0].executions[0].signals == [SIGTERM]


async def test_a_guest_that_came_up_badly_is_booted_again(tmp_path: Path) -> None:
    bad = FakeCommand(start_error=BadBoot("its timer is off"))
    record, driver = await run(tmp_path, bad, bad, FakeCommand(stdout=[b"x"]))
    [iteration] = record.result.iterations
    assert (iteration.outcome, iteration.error) == (Outcome.EXITED, None)
    assert [len(box.executions) for box in driver.boxes] == [0, 0, 1]


async def test_a_guest_that_always_comes_up_badly_is_a_fault_of_the_machine(tmp_path: Path) -> None:
    record, driver = await run(tmp_path, FakeCommand(start_error=BadBoot("its timer is off")))
    [iteration] = record.result.iterations
    assert iteration.error is not None
    assert (iteration.outcome, iteration.error.type) == (Outcome.INFRASTRUCTURE, "BadBoot")
    assert len(driver.boxes) == 3


async def test_lost_box_is_a_transient_fault_and_allow_failure_goes_on(tmp_path: Path) -> None:
    spec = replace(SPEC, iterations=2, allow_failure=True)
    record, _ = await run(tmp_path, FakeCommand(lost=True, stdout=[b"x"]), FakeCommand(), spec=spec)
    first, second = record.result.iterations
    assert first.error is not None
    assert (first.outcome, first.error.fault, first.error.type) == (
        Outcome.INFRASTRUCTURE, Fault.TRANSIENT, "BoxLost",
    )  # fmt: skip
    assert second.outcome is Outcome.EXITED
    assert record.result.exit_code == 125, "failures of the benchmark are allowed, faults of the machine are not hidden"


async def test_stable_fault_ends_the_run_even_when_failures_are_allowed(tmp_path: Path) -> None:
    spec = replace(SPEC, iterations=3, allow_failure=True)
    record, driver = await run(tmp_path, FakeCommand(start_error=BoxTooSmall("8 MiB is too little")), spec=spec)
    assert len(driver.boxes) == 1
    assert record.result.iterations[0].error is not None
    assert record.result.iterations[0].error.fault is Fault.STABLE
    assert record.result.exit_code == 125


async def test_hanging_start_is_given_up(tmp_path: Path) -> None:
    record, driver = await run(tmp_path, FakeCommand(hangs_at_start=True), deadlines=Deadlines(start_s=0.05))
    assert record.result.iterations[0].outcome is Outcome.INFRASTRUCTURE
    assert driver.boxes[0].removed


@pytest.mark.parametrize(
    "error", [ImageNotFound("no such image"), RegistryUnavailable("it is away"), RuntimeError("surprise")]
)
async def test_what_fails_before_the_first_iteration_is_the_runs_error(tmp_path: Path, error: Exception) -> None:
    record, driver = await run(tmp_path, images=FakeImages(pull_error=error))
    assert record.result.error is not None
    assert str(error) in record.result.error.message
    assert (record.result.exit_code, record.result.iterations, driver.boxes) == (125, (), [])
    expected = Fault.TRANSIENT if isinstance(error, RegistryUnavailable) else Fault.STABLE
    assert record.result.error.fault is expected


async def test_unusable_sandbox_is_found_before_the_image_is_pulled(tmp_path: Path) -> None:
    images, driver = FakeImages(), FakeDriver()
    context = surroundings(tmp_path, driver, images=images)
    context = replace(
        context, sandboxes=FakeSandboxes(driver=driver, error=SandboxUnavailable("no /dev/kvm", hint="load kvm"))
    )
    record = await execute(SPEC, context=context, observer=RunObserver())
    assert record.result.error is not None
    assert (record.result.exit_code, record.result.error.hint, images.pulls) == (125, "load kvm", 0)


async def test_nothing_to_run_is_found_before_a_root_is_built(tmp_path: Path) -> None:
    images = FakeImages(config=ImageConfig())
    record, driver = await run(tmp_path, images=images)
    assert record.result.error is not None
    assert record.result.error.type == "ProcessRefused"
    assert (images.opened, driver.boxes, record.result.exit_code) == (0, [], 125)


async def test_slow_pull_meets_its_deadline(tmp_path: Path) -> None:
    record, _ = await run(tmp_path, images=FakeImages(pull_hangs=True), deadlines=Deadlines(pull_s=0.05))
    assert record.result.error is not None
    assert (record.result.error.type, record.result.error.fault) == ("PhaseTimeout", Fault.TRANSIENT)


@pytest.mark.parametrize("at", ["pull 0", "rootfs 0", "spawn 1", "exec 1"])
async def test_one_signal_cancels_at_every_phase(tmp_path: Path, at: str) -> None:
    stop, observer = StopRequest(), RecordingObserver()
    observer.on_event[at] = partial(stop.request, int(SIGTERM))
    images = FakeImages(pull_hangs=at == "pull 0")
    command = FakeCommand(endless=True, hangs_at_start=at == "spawn 1", stdout=[b"so far"])
    spec = replace(SPEC, iterations=3)
    record, driver = await run(tmp_path, command, spec=spec, images=images, stop=stop, observer=observer)
    assert record.result.exit_code == 143
    assert len(driver.boxes) <= 1
    assert images.held == 0
    if at == "exec 1":
        assert record.result.iterations[0].outcome is Outcome.CANCELED
        assert (record.iterations[0].folder / "stdout").read_bytes() == b"so far"
        assert driver.boxes[0].executions[0].signals == [SIGTERM]


async def test_second_signal_does_not_wait_for_the_grace_period(tmp_path: Path) -> None:
    stop, observer = StopRequest(), RecordingObserver()

    def twice() -> None:
        stop.request(2)
        stop.request(15)

    observer.on_event["exec 1"] = twice
    command = FakeCommand(endless=True, ignores=frozenset({int(SIGTERM)}))
    record, driver = await run(tmp_path, command, spec=replace(SPEC, grace_s=600), stop=stop, observer=observer)
    assert (record.result.exit_code, record.result.iterations[0].outcome) == (130, Outcome.CANCELED)
    assert driver.boxes[0].removed


async def test_stop_between_iterations_is_not_success(tmp_path: Path) -> None:
    stop, observer = StopRequest(), RecordingObserver()
    observer.on_event["ended"] = partial(stop.request, 2)
    record, _ = await run(tmp_path, spec=replace(SPEC, iterations=2), stop=stop, observer=observer)
    assert (len(record.result.iterations), record.result.exit_code) == (1, 130)


async def test_streams_are_cut_at_the_bound_and_flagged(tmp_path: Path) -> None:
    spec = replace(SPEC, output_limits=OutputLimits(stream_bytes=10))
    record, _ = await run(tmp_path, FakeCommand(stdout=[b"12345678", b"90abc"], stderr=[b"short"]), spec=spec)
    [iteration] = record.result.iterations
    assert (iteration.stdout.kept_bytes, iteration.stdout.written_bytes, iteration.stdout.truncated) == (10, 13, True)
    assert (iteration.stderr.kept_bytes, iteration.stderr.truncated) == (5, False)


async def test_output_files_and_missing_ones(tmp_path: Path) -> None:
    spec = replace(SPEC, outputs=("/out/*.json", "/out/none"))
    files = {"/out/a.json": b"{}", "/out/b.json": b"[]", "/etc/passwd": b"root"}
    record, _ = await run(tmp_path, FakeCommand(files=files), spec=spec)
    output = record.result.iterations[0].output
    assert [file.path for file in output.files] == ["/out/a.json", "/out/b.json"]
    assert output.missing == ("/out/none",)
    assert record.iterations[0].collected.files[1].kept.read_bytes() == b"[]"


async def test_output_that_nobody_wants_does_not_pile_up(tmp_path: Path) -> None:
    context = replace(surroundings(tmp_path, FakeDriver(FakeCommand(stdout=[b"x"]))), keep_output=False)
    record = await execute(replace(SPEC, iterations=3), context=context, observer=RunObserver())
    assert [iteration.stdout.kept_bytes for iteration in record.result.iterations] == [1, 1, 1]
    assert list((tmp_path / "spool").iterdir()) == []


async def test_malformed_output_archive_is_a_fault_of_the_box_not_a_crash(tmp_path: Path) -> None:
    record, _ = await run(tmp_path, FakeCommand(archive=b"not a tar" * 200), spec=replace(SPEC, outputs=("/x",)))
    [iteration] = record.result.iterations
    assert iteration.outcome is Outcome.INFRASTRUCTURE
    assert iteration.error is not None
    assert iteration.error.type == "ProtocolError"


async def test_files_are_collected_after_a_time_out_too(tmp_path: Path) -> None:
    spec = replace(SPEC, timeout_s=0.05, outputs=("/log",))
    record, _ = await run(tmp_path, FakeCommand(endless=True, files={"/log": b"so far"}), spec=spec)
    assert [file.size_bytes for file in record.result.iterations[0].output.files] == [6]


async def test_emulation_is_said(tmp_path: Path) -> None:
    driver = FakeDriver(FakeCommand(), accelerator=Accelerator.TCG)
    record = await execute(SPEC, context=surroundings(tmp_path, driver), observer=RunObserver())
    assert record.result.verdict == "emulated"


async def test_overrides_reach_the_command(tmp_path: Path) -> None:
    images = FakeImages(config=ImageConfig(entrypoint=("/bin/app",), cmd=("x",), env=("A=1",), workdir="/w", user="u"))
    overrides = ProcessOverrides(cmd=("y",), env={"A": "2", "B": "3"}, user="0")
    _, driver = await run(tmp_path, images=images, spec=replace(SPEC, overrides=overrides, live=False))
    [request] = driver.boxes[0].requests
    assert request.argv == ("/bin/app", "y")
    assert {"A=2", "B=3"} < set(request.env)
    assert (request.workdir, request.user, request.hold) == ("/w", "0", True)


async def test_unforeseen_error_in_a_group_is_told_by_its_cause(tmp_path: Path) -> None:
    group: Exception = ExceptionGroup("tasks", [BoxLost("gone"), BoxTooSmall("8 MiB")])
    record, _ = await run(tmp_path, images=FakeImages(rootfs_error=group))
    assert record.result.error is not None
    assert record.result.error.type == "BoxTooSmall"
    assert isinstance(BoxTooSmall("x"), MetalmarkError)
