"""What all boxes with an agent share: phases, limits, explanations and the end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio.abc import ByteStream, TaskGroup

from metalmark.model import (
    BoxLost,
    MetalmarkError,
    NoSpace,
    Phase,
    PhaseTimeout,
    Resources,
    RootfsMode,
    SandboxName,
    ToolMissing,
)
from metalmark.sandbox import Accelerator, BoxFacts, BoxSpec
from metalmark.sandbox.agent_binary import agent_binary
from metalmark.sandbox.agent_box import AgentBox
from metalmark.testing.fake_agent import FakeAgent
from metalmark.wire import Exec, Exited, Hello, Kind, Setup

pytestmark = pytest.mark.anyio
TRUE = Exec(argv=("true",), stream_bytes=10)


class Boxed(AgentBox):
    """A box around a fake agent."""

    stop_limit_s = 0.2

    def __init__(self, spec: BoxSpec, tasks: TaskGroup, agent: FakeAgent) -> None:
        super().__init__(spec, tasks)
        self.agent = agent
        self.ends = 0
        self.cause: MetalmarkError | None = None

    async def _spawn(self) -> ByteStream:
        return self.agent.stream

    def _setup(self, hello: Hello) -> Setup:
        return Setup(hostname=self.spec.hostname)

    async def _end(self) -> None:
        self.ends += 1

    async def _cause(self) -> MetalmarkError | None:
        return self.cause

    async def _accounted(self, exited: Exited) -> Exited:
        return Exited(**{**vars(exited), "memory_peak_bytes": 4096})

    @property
    def facts(self) -> BoxFacts:
        return BoxFacts(sandbox=SandboxName.NONE, accelerator=Accelerator.NATIVE, kernel=self.hello.kernel)


@asynccontextmanager
async def box(*, boot_timeout_s: float = 5.0) -> AsyncIterator[Boxed]:
    """A box that has not started."""
    spec = BoxSpec(
        name="fake", root=Path("/nowhere"), rootfs=RootfsMode.OVERLAY, workspace=Path("/nowhere"),
        resources=Resources(), hostname="fake", boot_timeout_s=boot_timeout_s,
    )  # fmt: skip
    agent = FakeAgent()
    try:
        async with anyio.create_task_group() as tasks:
            made = Boxed(spec, tasks, agent)
            with anyio.fail_after(10):
                yield made
                await made.stop()
            tasks.cancel_scope.cancel()
    finally:
        await agent.hang_up()
        await agent.stream.aclose()


async def test_phases_follow_each_other_without_a_gap() -> None:
    async with box() as made:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(made.agent.set_up)
            await made.start()
        assert [span.phase for span in made.phases] == [Phase.SPAWN, Phase.KERNEL, Phase.AGENT]
        for earlier, later in zip(made.phases, made.phases[1:], strict=False):
            assert earlier.start_ns + earlier.duration_ns == later.start_ns
        # On the guest's clock 4,000 ns passed between its first instruction and READY.
        assert made.phases[2].duration_ns == 4_000
        assert made.facts.kernel == "6.1-fake"


async def test_a_guest_that_never_greets_is_told_by_its_phase() -> None:
    async with box(boot_timeout_s=0.05) as made:
        with pytest.raises(PhaseTimeout, match="kernel") as caught:
            await made.start()
        assert "--debug-boot" in caught.value.hint
    assert made.ends == 1


async def test_a_guest_that_never_gets_ready_is_told_by_its_phase() -> None:
    async with box(boot_timeout_s=0.05) as made:
        await made.agent.greet()
        with pytest.raises(PhaseTimeout, match="agent"):
            await made.start()


async def test_the_drivers_own_finding_comes_before_that_a_channel_ended() -> None:
    async with box() as made:
        made.cause = NoSpace("QEMU: no space left")
        await made.agent.hang_up()
        with pytest.raises(NoSpace, match="QEMU"):
            await made.start()


async def test_nothing_can_be_asked_of_a_box_that_has_not_started() -> None:
    async with box() as made:
        with pytest.raises(BoxLost, match="not started"):
            await made.exec(TRUE, lambda stream, data: None)
        with pytest.raises(BoxLost, match="not started"):
            await made.clock()
        with pytest.raises(BoxLost):
            _ = made.hello


async def test_a_command_has_started_when_the_agent_says_so_or_the_box_is_gone() -> None:
    async with box() as made:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(made.agent.set_up)
            await made.start()
        first = await made.exec(TRUE, lambda stream, data: None)
        second = await made.exec(TRUE, lambda stream, data: None)
        await made.agent.send(Kind.STARTED, 1)
        await first.started()
        with anyio.move_on_after(0.05) as patience:
            await second.started()
        assert patience.cancelled_caught, "each has its own"
        await made.agent.hang_up()
        await second.started()
        with pytest.raises(BoxLost):
            await second.wait()


async def test_a_command_is_completed_by_the_hosts_accounting() -> None:
    async with box() as made:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(made.agent.set_up)
            await made.start()
        execution = await made.exec(TRUE, lambda stream, data: None)
        assert (await made.agent.receive()).kind == Kind.EXEC
        await made.agent.exit(1, 3)
        end = await execution.wait()
        assert (end.code, end.memory_peak_bytes) == (3, 4096)
        made.cause = BoxLost("QEMU was killed")
        execution = await made.exec(TRUE, lambda stream, data: None)
        await made.agent.hang_up()
        with pytest.raises(BoxLost, match="QEMU was killed"):
            await execution.wait()


async def test_stop_is_polite_then_forced_and_once() -> None:
    async with box() as made:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(made.agent.set_up)
            await made.start()
        with anyio.fail_after(2):  # the agent answers nothing
            await made.stop()
        await made.stop()
        assert made.ends == 1
        assert (await made.agent.receive()).kind == Kind.POWEROFF


async def test_a_canceled_stop_still_ends_the_box() -> None:
    async with box() as made:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(made.agent.set_up)
            await made.start()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await made.stop()
        assert made.ends == 1


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "riscv64"])
async def test_a_missing_agent_is_an_error_with_the_command_that_makes_it(machine: str, tmp_path: Path) -> None:
    with pytest.raises(ToolMissing) as caught:
        agent_binary(machine, folder=tmp_path)
    assert machine in caught.value.found
    if machine != "riscv64":
        assert "make -C guest" in caught.value.hint
    (tmp_path / f"metalmark-agent-{machine}").touch()
    if machine != "riscv64":
        assert agent_binary(machine, folder=tmp_path).name == f"metalmark-agent-{machine}"
