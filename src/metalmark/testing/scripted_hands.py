"""Jobs in hand whose executions do what a test says, on the real list and the real spool."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import anyio

from metalmark.model import Phase
from metalmark.runner import (
    EndKind,
    EndOfJob,
    JobInHand,
    JobsInHand,
    LinkObserver,
    ResultSpool,
    RunnerIdentity,
    SessionPace,
    SpooledEnd,
    Updates,
    Urgency,
)
from metalmark.system import in_thread
from metalmark.wire import IterationOutput, JobOutput, ProvedCapabilities, RunnerMetadata

QUICK = SessionPace(
    answer_s=2.0,
    end_answer_s=4.0,
    beat_max_s=0.5,
    phase_s=0.02,
    again_s=0.1,
    upload_again_s=0.1,
    drain_s=1.0,
    public_beat_s=0.1,
    public_ack_s=0.5,
    public_poll_s=2,
    public_trial_poll_s=1,
    public_poll_margin_s=2.0,
)
"""Times of a session, for tests."""


def identity(runner: object = "rack-7", **values: object) -> RunnerIdentity:
    """Return what a runner says of itself."""
    proved = ProvedCapabilities(os="linux", architecture="x86_64", sandboxes=("firecracker", "qemu", "none"))
    said: dict[str, object] = {
        "runner": str(runner),
        "version": "1",
        "process": uuid4().hex,
        "boot": "boot",
        "capabilities": proved,
        "metadata": RunnerMetadata(os="linux", arch="x86_64", version="1", checksum="c" * 64),
        **values,
    }
    return RunnerIdentity(**said)  # type: ignore[arg-type]  # named by the tests


@dataclass
class Script:
    """One execution, at a test's hand."""

    job: JobInHand
    over: anyio.Event = field(default_factory=anyio.Event)
    kind: EndKind = EndKind.COMPLETED
    error: str | None = None
    infrastructure: bool = False
    results: tuple[IterationOutput, ...] = (IterationOutput(exit_code=0, stdout="{}"),)

    def begin(self) -> None:
        """The benchmark begins."""
        self.job.enter(Phase.EXEC, 1)

    def say(self, text: str) -> None:
        """The benchmark prints."""
        self.job.output.write(text.encode(), iteration=1, stream="stdout")

    def complete(self, *, stdout: str = "{}", **fields: object) -> None:
        """The benchmark ends well."""
        said: dict[str, object] = {"exit_code": 0, "stdout": stdout, **fields}
        self.results = (IterationOutput.model_validate(said),)
        self.over.set()

    def fail(self, error: str, *, infrastructure: bool = False) -> None:
        """It ends badly."""
        self.kind, self.error, self.infrastructure = EndKind.FAILED, error, infrastructure
        self.over.set()


@dataclass
class ScriptedHands:
    """The list of jobs in hand, and the executions that run."""

    spool: ResultSpool
    jobs: JobsInHand
    scripts: dict[UUID, Script] = field(default_factory=dict)
    executed: list[UUID] = field(default_factory=list)
    """Each start of an execution."""
    on_start: Callable[[Script], None] | None = None

    async def execute(self, job: JobInHand) -> SpooledEnd:
        """Run one job until the test ends it, or it is stopped."""
        self.spool.begin(job.job, job.lease)
        script = self.scripts[job.job] = Script(job)
        self.executed.append(job.job)
        job.enter(Phase.PULL, 0)
        if self.on_start is not None:
            self.on_start(script)
        with anyio.CancelScope() as scope, job.stop.cancelling(scope, at=Urgency.POLITE):
            await script.over.wait()
        end = EndOfJob(kind=script.kind, error=script.error, infrastructure=script.infrastructure)
        if not script.over.is_set():
            end = EndOfJob(kind=EndKind.CANCELED)
        document = JobOutput(results=script.results, error=end.error).model_dump_json().encode()
        return self.spool.keep(job.job, job.lease, end, lambda sink: sink.write(document))

    async def until(self, true: Callable[[], object], *, within_s: float = 20.0) -> None:
        """Wait until something is true of the jobs in hand.

        Raises:
            TimeoutError: It does not come true.
        """
        with anyio.fail_after(within_s):
            while not true():
                seen = self.jobs.version
                # What is not of the list, such as what the server says, is looked at now and then.
                with anyio.move_on_after(0.1):
                    await self.jobs.changed(seen)

    async def started(self, count: int = 1, *, within_s: float = 20.0) -> list[Script]:
        """Wait for so many executions, and return all."""
        await self.until(lambda: len(self.scripts) >= count, within_s=within_s)
        return list(self.scripts.values())


@asynccontextmanager
async def scripted_hands(folder: Path, *, slots: int = 1) -> AsyncIterator[ScriptedHands]:
    """Open the hands of a runner; ends of earlier ones in the folder are in hand."""
    await in_thread(_make, folder)
    with ResultSpool(folder) as spool:
        hands = ScriptedHands(spool, JobsInHand(spool, slots=slots, left=spool.read_back()))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hands.jobs.serve, hands.execute)
            yield hands
            tasks.cancel_scope.cancel()


def _make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)


@dataclass
class NotedUpdates(Updates):
    """Notes what is offered."""

    checksum: str | None = "c" * 64
    on_trial: bool = False
    offers: list[tuple[str, str, str]] = field(default_factory=list)
    acknowledgements: int = 0

    def offered(self, version: str, url: str, checksum: str) -> None:
        """Note an offer."""
        self.offers.append((version, url, checksum))

    def acknowledged(self) -> None:
        """Count an acknowledged ``ready``."""
        self.acknowledgements += 1

    async def run(self, hands: object) -> None:  # type: ignore[override]  # noqa: ARG002  # never returns
        """Do nothing."""
        await anyio.sleep_forever()


@dataclass
class NotedLink(LinkObserver):
    """Notes what happens to a link."""

    events: list[str] = field(default_factory=list)

    def connected(self, protocol: str, version: str) -> None:  # noqa: ARG002  # the protocol is what matters
        """Note the protocol."""
        self.events.append(protocol)

    def confirmed(self) -> None:
        """Note it."""
        self.events.append("confirmed")

    def disconnected(self, error: Exception | None, wait_s: float) -> None:  # noqa: ARG002  # tests choose it
        """Note the reason."""
        self.events.append(f"lost: {error}")
