from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from signal import SIGINT, SIGTERM
from threading import Event
from typing import Any

import anyio
import anyio.to_thread
import pytest
from tests.unit.runner.assignments import CAPABLE, assignment
from tests.unit.runner.surroundings import FakeImages, FakeSandboxes, topology

from metalmark.model import ImageNotFound, NoSpace, OutputLimits, Phase, RegistryUnavailable, SandboxName
from metalmark.runner.assigned_job import JobExecutor, JobSurroundings, job_spec, refusal, registry_access
from metalmark.runner.assignment import Assignment
from metalmark.runner.end_file import EndKind, SpooledEnd, has_results
from metalmark.runner.end_message import own_end
from metalmark.runner.job_in_hand import JobInHand
from metalmark.runner.jobs_in_hand import JobsInHand
from metalmark.runner.result_spool import ResultSpool
from metalmark.system import Folders
from metalmark.testing.fake_sandbox import FakeCommand, FakeDriver
from metalmark.wire import Broke, JobOutput

pytestmark = pytest.mark.anyio


@dataclass(kw_only=True)
class Bench:
    """A runner's job side with a fake sandbox."""

    jobs: JobsInHand
    driver: FakeDriver
    spool: ResultSpool
    images: FakeImages
    folder: Path

    async def end(self, given: Assignment) -> SpooledEnd:
        self.jobs.take(given)
        job = self.jobs.find(given.job, given.lease)
        assert job is not None
        await self.until(lambda: job.end is not None)
        assert job.end is not None
        return job.end

    async def until(self, true: Callable[[], object]) -> None:
        with anyio.fail_after(20):
            while not true():
                await self.jobs.changed(self.jobs.version)


def surroundings(folder: Path, driver: FakeDriver, images: FakeImages) -> JobSurroundings:
    return JobSurroundings(
        capabilities=CAPABLE,
        images=lambda _: nullcontext(images),
        sandboxes=FakeSandboxes(driver=driver),
        folders=Folders(state=folder / "state", cache=folder / "cache", run=folder / "run", config=folder / "config"),
        spool=folder / "scratch",
        topology=topology(4),
        output_limits=OutputLimits(),
        grace_s=30.0,
    )


@asynccontextmanager
async def bench(
    folder: Path, *commands: FakeCommand, slots: int = 1, images: FakeImages | None = None, **changes: Any
) -> AsyncIterator[Bench]:
    (folder / "results").mkdir()
    (folder / "scratch").mkdir()
    driver, images, spool = FakeDriver(*commands), images or FakeImages(), ResultSpool(folder / "results")
    around = replace(surroundings(folder, driver, images), **changes)
    jobs = JobsInHand(spool, slots=slots)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(jobs.serve, JobExecutor(spool, around))
        yield Bench(jobs=jobs, driver=driver, spool=spool, images=images, folder=folder)
        tasks.cancel_scope.cancel()
    assert list((folder / "scratch").iterdir()) == []
    assert list(folder.glob("run/boxes/*")) == []
    assert images.held == 0


def output(end: SpooledEnd) -> JobOutput:
    return JobOutput.model_validate_json(end.document.read_bytes())


async def test_good_job_leaves_its_output_on_disk_and_live(tmp_path: Path) -> None:
    async with bench(tmp_path, FakeCommand(stdout=[b"one\n", b"two\n"], stderr=[b"bad\n"])) as it:
        given = assignment(iter=2)
        end = await it.end(given)
        assert (end.kind, end.error) == (EndKind.COMPLETED, None)
        assert [result.stdout for result in output(end).results] == ["one\ntwo\n"] * 2
        job = it.jobs.holding()[0]
        assert job.began
        assert job.phase == (Phase.COLLECT, 2)
        section = job.output.read(0)
        assert section is not None
        assert [(c.iteration, c.stream, c.data) for c in section.chunks] == [
            (1, "stdout", b"one\ntwo\n"), (1, "stderr", b"bad\n"),
            (2, "stdout", b"one\ntwo\n"), (2, "stderr", b"bad\n"),
        ]  # fmt: skip


@pytest.mark.parametrize(("printed", "free_slots"), [(10, 1), (1024 * 1024, 0)])
async def test_next_job_may_come_while_a_small_end_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: int, free_slots: int
) -> None:
    async with bench(tmp_path, FakeCommand(stdout=[b"x" * printed])) as it:
        keep, writing, written = it.spool.keep, Event(), Event()

        def slow_keep(*arguments: Any) -> SpooledEnd:
            writing.set()
            assert written.wait(10)
            return keep(*arguments)

        monkeypatch.setattr(it.spool, "keep", slow_keep)
        it.jobs.take(assignment())
        try:
            await anyio.to_thread.run_sync(writing.wait, 10)
            (job,) = it.jobs.holding()
            assert (it.jobs.free_slots, job.end, it.driver.boxes[0].removed) == (free_slots, None, True)
        finally:
            written.set()
        await it.jobs.idle()
        assert it.jobs.free_slots == 1


async def test_live_output_is_what_is_kept(tmp_path: Path) -> None:
    async with bench(tmp_path, FakeCommand(stdout=[b"12345"]), output_limits=OutputLimits(stream_bytes=3)) as it:
        end = await it.end(assignment())
        assert output(end).results[0].stdout == "123"
        assert it.jobs.holding()[0].output.end_offset == 3


async def test_failed_iteration_ends_the_job_with_the_results_so_far(tmp_path: Path) -> None:
    async with bench(tmp_path, FakeCommand(), FakeCommand(code=3)) as it:
        end = await it.end(assignment(iter=3))
        assert (end.kind, end.error, end.infrastructure) == (
            EndKind.FAILED,
            "iteration 2 ended with exit code 3",
            False,
        )
        assert [result.exit_code for result in output(end).results] == [0, 3]
        assert output(end).error == end.error


@pytest.mark.parametrize(
    ("error", "infrastructure"), [(ImageNotFound("no such image"), False), (RegistryUnavailable("it is away"), True)]
)
async def test_image_that_cannot_be_had_is_told(tmp_path: Path, error: Exception, infrastructure: bool) -> None:
    async with bench(tmp_path, images=FakeImages(pull_error=error)) as it:
        end = await it.end(assignment())
        assert (end.kind, end.error, end.infrastructure) == (EndKind.FAILED, str(error), infrastructure)
        assert not it.jobs.holding()[0].began


async def test_defect_is_an_end_too(tmp_path: Path) -> None:
    async with bench(tmp_path, images=FakeImages(rootfs_error=ZeroDivisionError("oops"))) as it:
        end = await it.end(assignment())
        assert (end.kind, end.infrastructure) == (EndKind.FAILED, True)
        assert end.error is not None
        assert "ZeroDivisionError" in end.error


async def test_job_that_cannot_be_served_is_refused_untouched(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        end = await it.end(assignment(spec={"sandbox": None}))
        assert (end.kind, end.infrastructure) == (EndKind.FAILED, True)
        assert end.error is not None
        assert "--danger-allow-no-sandbox" in end.error
        assert it.images.pulls == 0


@pytest.mark.parametrize("stage", ["pull", "boot", "exec", "stubborn"])
async def test_cancel_ends_it_soon_in_every_phase(tmp_path: Path, stage: str) -> None:
    commands = {
        "pull": FakeCommand(),
        "boot": FakeCommand(hangs_at_start=True),
        "exec": FakeCommand(stdout=[b"so far"], endless=True),
        "stubborn": FakeCommand(stdout=[b"so far"], endless=True, ignores=frozenset((SIGTERM, SIGINT))),
    }
    phases = {"pull": Phase.PULL, "boot": Phase.SPAWN}
    async with bench(tmp_path, commands[stage], images=FakeImages(pull_hangs=stage == "pull")) as it:
        given = assignment()
        it.jobs.take(given)
        job = it.jobs.holding()[0]
        await it.until(lambda: job.phase is not None and job.phase[0] is phases.get(stage, Phase.EXEC))
        await anyio.wait_all_tasks_blocked()
        job.cancel("somebody wants it")
        # The grace period is half a minute: what is canceled does not get that.
        with anyio.fail_after(10):
            await it.jobs.idle()
        assert job.end is not None
        assert job.end.kind is EndKind.CANCELED
        assert [result.stdout for result in output(job.end).results] == {
            "pull": [], "boot": [None], "exec": ["so far"], "stubborn": ["so far"],
        }[stage]  # fmt: skip


@pytest.mark.parametrize("began", [True, False])
async def test_abandoned_job_may_be_tried_elsewhere_if_it_has_not_begun(tmp_path: Path, began: bool) -> None:
    async with bench(tmp_path, FakeCommand(endless=True), images=FakeImages(pull_hangs=not began)) as it:
        it.jobs.take(assignment())
        job = it.jobs.holding()[0]
        await it.until(lambda: job.began if began else job.phase)
        job.abandon("the runner was stopped")
        await it.jobs.idle()
        assert job.end is not None
        expected = (EndKind.CANCELED, None, False) if began else (EndKind.FAILED, "the runner was stopped", True)
        assert (job.end.kind, job.end.error, job.end.infrastructure) == expected


async def test_jobs_side_by_side_get_cpus_of_their_own_and_wait_for_them(tmp_path: Path) -> None:
    async with bench(tmp_path, FakeCommand(endless=True), slots=3) as it:
        for number, cpus in enumerate((2, 1), 1):
            it.jobs.take(assignment(spec={"cpu": cpus}))
            await it.until(lambda: sum(job.began for job in it.jobs.holding()) == number)  # noqa: B023  # awaited here
        it.jobs.take(assignment())
        await anyio.wait_all_tasks_blocked()
        assert [box.spec.cpus for box in it.driver.boxes] == [(1, 2), (3,)]
        waiting = it.jobs.holding()[2]
        assert waiting.phase is None
        it.jobs.holding()[1].cancel("enough")
        await it.until(lambda: waiting.began)
        assert it.driver.boxes[2].spec.cpus == (3,)
        for job in it.jobs.holding():
            job.cancel("enough")
        await it.jobs.idle()


async def test_job_that_is_canceled_while_it_waits_for_cpus_ends(tmp_path: Path) -> None:
    async with bench(tmp_path, FakeCommand(endless=True), slots=2) as it:
        it.jobs.take(assignment(spec={"cpu": 4}))
        await it.until(lambda: it.jobs.holding()[0].began)
        it.jobs.take(assignment())
        first, second = it.jobs.holding()
        await anyio.wait_all_tasks_blocked()
        second.cancel("enough")
        await it.until(lambda: second.end is not None)
        assert second.end is not None
        assert second.end.kind is EndKind.CANCELED
        first.cancel("enough")
        await it.jobs.idle()


async def test_full_disk_still_gives_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise NoSpace("the disk is full")

    monkeypatch.setattr("metalmark.runner.assigned_job.write_document", full)
    async with bench(tmp_path) as it:
        end = await it.end(assignment())
        assert (end.kind, end.infrastructure) == (EndKind.FAILED, True)
        assert output(end).results == ()


@pytest.mark.parametrize("when", ["start", "end"])
async def test_disk_that_takes_nothing_still_gives_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    for name in ("_keep", "_keep_in_reserve", *(["begin"] if when == "start" else [])):
        monkeypatch.setattr(ResultSpool, name, full)
    async with bench(tmp_path) as it:
        end = await it.end(assignment())
        assert (end.kind, end.infrastructure) == (EndKind.FAILED, True)
        assert end.error is not None
        assert "Read-only file system" in end.error
        assert not has_results(end)
        message = own_end(end, message_id=1, uploaded=False)
        assert isinstance(message, Broke)
        assert (message.error, message.results, message.infrastructure) == (end.error, (), True)
        assert len(it.driver.boxes) == (when == "end")


def test_spec_says_what_the_job_says(tmp_path: Path) -> None:
    given = assignment(
        spec={"cpu": 2, "memory": 2**28, "disk": 2**27, "network": True},
        entrypoint=("sh",), cmd=("-c", "true"), env={"A": "b"}, file_paths=("/out/*",), iter=0, allow_failure=True,
    )  # fmt: skip
    spec = job_spec(given, surroundings(tmp_path, FakeDriver(), FakeImages()))
    assert spec.image == f"docker://localhost:6610/{given.config.project}@{given.config.digest}"
    assert (spec.overrides.entrypoint, spec.overrides.cmd, spec.overrides.env) == (("sh",), ("-c", "true"), {"A": "b"})
    assert (spec.resources.vcpus, spec.resources.memory_bytes, spec.resources.disk_bytes) == (2, 2**28, 2**27)
    assert (spec.network, spec.iterations, spec.timeout_s, spec.allow_failure) == (True, 0, 60.0, True)
    assert spec.outputs == ("/out/*",)


@pytest.mark.parametrize(
    ("sandbox", "network", "worked", "chosen"),
    [
        ("microvm", False, ("firecracker", "qemu"), SandboxName.FIRECRACKER),
        ("microvm", True, ("firecracker", "qemu"), SandboxName.QEMU),
        ("microvm", False, ("qemu",), SandboxName.QEMU),
        ("firecracker", False, ("firecracker",), SandboxName.FIRECRACKER),
        ("container", False, ("container",), SandboxName.CONTAINER),
        (None, False, ("none",), SandboxName.NONE),
    ],
)
def test_sandbox_of_a_spec(
    tmp_path: Path, sandbox: str | None, network: bool, worked: tuple[str, ...], chosen: SandboxName
) -> None:
    able = CAPABLE.model_copy(update={"sandboxes": worked})
    around = replace(surroundings(tmp_path, FakeDriver(), FakeImages()), capabilities=able)
    given = assignment(spec={"sandbox": sandbox, "network": network})
    assert job_spec(given, around).sandbox is chosen
    assert refusal(given, able) == ""


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"architecture": "aarch64"}, "aarch64"),
        ({"sandbox": "firecracker"}, "firecracker did not work"),
        ({"cpu": 5}, "vCPUs"),
        ({"memory": 2**33}, "memory"),
    ],
)
def test_refusal_says_what_is_lacking(spec: dict[str, Any], why: str) -> None:
    assert why in refusal(assignment(spec=spec), CAPABLE)


def test_no_plan_is_made_of_billions_of_iterations() -> None:
    assert "4294967295 iterations" in refusal(assignment(iter=2**32 - 1), CAPABLE)


def test_registry_gets_the_jobs_token_and_nothing_of_this_machine() -> None:
    environment = {"HOME": "/root", "DOCKER_CONFIG": "/x", "https_proxy": "http://p", "SSL_CERT_FILE": "/ca"}
    access = registry_access(assignment(), environment)
    assert (access.token, access.plain_http, access.cached_for_all) == ("secret", True, False)
    assert access.environment == {"https_proxy": "http://p", "SSL_CERT_FILE": "/ca"}
    assert "secret" not in repr(access)


def test_whom_the_runner_trusts_counts_for_the_servers_registry_alone() -> None:
    trusted = ssl.create_default_context()
    assert registry_access(assignment(), {}, tls=trusted).tls is trusted
    foreign = assignment(registry="https://ghcr.io/", repository="acme/app")
    assert registry_access(foreign, {}, tls=trusted).tls is None


def test_foreign_registry_gets_no_token(tmp_path: Path) -> None:
    given = assignment(registry="https://ghcr.io/", repository="acme/app")
    access = registry_access(given, {})
    assert (access.token, access.plain_http) == ("", False)
    spec = job_spec(given, surroundings(tmp_path, FakeDriver(), FakeImages()))
    assert spec.image == f"docker://ghcr.io/acme/app@{given.config.digest}"


def test_job_in_hand_hides_the_token() -> None:
    given = assignment()
    assert "secret" not in repr(JobInHand(given.job, given.lease, assignment=given).assignment)
