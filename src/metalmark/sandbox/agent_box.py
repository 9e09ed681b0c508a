"""The part of a box that every sandbox shares: all that goes through the guest agent.

A driver subclasses `AgentBox` and says how its box comes to life (`_spawn`), what the agent shall set up (`_setup`),
how the box is made to end (`_end`), and why it may have died (`_cause`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import anyio
from anyio.abc import ByteStream, TaskGroup

from metalmark.model import BoxLost, MetalmarkError, Phase, PhaseSpan, PhaseTimeout
from metalmark.sandbox.agent import AgentConnection, AgentExecution
from metalmark.sandbox.port import Box, BoxFacts, BoxSpec, DataSink, Execution, OutputSink
from metalmark.system import in_thread, monotonic_ns
from metalmark.wire import Clock, Done, Exec, Exited, Get, Hello, Put, Ready, Setup

_CHUNK_BYTES = 256 * 1024
_CAUSE_LIMIT_S = 2.0


class AgentBox(Box, ABC):
    """A box with a guest agent in it.

    Args:
        spec: What the box is made from.
        tasks: The task group of the box's life; the connection's reader runs there.
    """

    boot_limit_s = 60.0
    """From spawn to ready, when the spec has no limit of its own."""
    stop_limit_s = 5.0
    """How long the polite end may take."""
    transfer_limit_s = 600.0
    """How long one copy may take."""
    own_kernel = True
    """Whether the box boots a kernel; without one, the phase ``kernel`` takes no time."""

    def __init__(self, spec: BoxSpec, tasks: TaskGroup) -> None:
        self.spec = spec
        self._tasks = tasks
        self._connection: AgentConnection | None = None
        self._hello: Hello | None = None
        self._ready: Ready | None = None
        self._phases: tuple[PhaseSpan, ...] = ()
        self._stopping: anyio.Event | None = None
        self._stopped = False

    @abstractmethod
    async def _spawn(self) -> ByteStream:
        """Start what the box consists of, and return the host's end of the agent's channel."""

    @abstractmethod
    def _setup(self, hello: Hello) -> Setup:
        """Return what the agent shall set up."""

    @abstractmethod
    async def _end(self) -> None:
        """End all that the box consists of, by force if it still runs; safe to repeat, also after half a start."""

    async def _cause(self) -> MetalmarkError | None:
        """Why the box went away, as far as the driver can tell (its process's last words); asked when it has."""
        return None

    async def _accounted(self, exited: Exited) -> Exited:
        """Complete a command's end with what the host knows of it, where the host does the accounting."""
        return exited

    async def _prepared(self) -> None:
        """Do what is due when the box is ready and before the first command, such as binding vCPU threads."""

    @property
    @abstractmethod
    def facts(self) -> BoxFacts:
        """What this box is; complete once it has started."""

    @property
    def phases(self) -> tuple[PhaseSpan, ...]:
        """Spawn, kernel and agent, as far as they have ended."""
        return self._phases

    @property
    def hello(self) -> Hello:
        """What the agent said of its machine.

        Raises:
            BoxLost: The box has not started.
        """
        if self._hello is None:
            raise BoxLost("the box has not started")
        return self._hello

    @property
    def ready(self) -> Ready:
        """What the agent said when the box was ready.

        Raises:
            BoxLost: The box has not started.
        """
        if self._ready is None:
            raise BoxLost("the box has not started")
        return self._ready

    async def start(self) -> None:
        """Boot up to where commands can run.

        Raises:
            PhaseTimeout, BoxLost, BoxTooSmall, ToolMissing, NoSpace, NoPermission
        """
        limit_s = self.spec.boot_timeout_s or self.boot_limit_s
        phase = Phase.SPAWN
        try:
            with anyio.fail_after(limit_s):
                began_ns = monotonic_ns()
                stream = await self._spawn()
                spawned_ns = monotonic_ns()
                phase = Phase.KERNEL if self.own_kernel else Phase.AGENT
                self._connection = AgentConnection(stream)
                self._tasks.start_soon(self._connection.serve)
                self._hello = await self._connection.hello()
                phase = Phase.AGENT
                self._ready = await self._connection.setup(self._setup(self._hello))
                await self._prepared()
                self._phases = self._spans(began_ns, spawned_ns, monotonic_ns())
        except TimeoutError as error:
            raise PhaseTimeout(phase, limit_s, hint=await self._boot_hint()) from error
        except BoxLost as error:
            raise await self._explained(error) from error

    async def exec(self, request: Exec, output: OutputSink) -> Execution:
        """Start a command and return at once; several may run at the same time."""
        try:
            return _BoxExecution(self, await self._agent().exec(request, output))
        except BoxLost as error:
            raise await self._explained(error) from error

    async def copy_out(self, request: Get, data: DataSink) -> Done:
        """Fetch files as a tar stream. What the stream holds is untrusted.

        Raises:
            BoxLost, ProtocolError, PhaseTimeout, StableError; what the sink raises.
        """
        try:
            with anyio.fail_after(self.transfer_limit_s):
                return await self._agent().get(request, data)
        except TimeoutError as error:
            raise PhaseTimeout(Phase.COLLECT, self.transfer_limit_s) from error
        except BoxLost as error:
            raise await self._explained(error) from error

    async def copy_in(self, folder: str, tar: Path) -> Done:
        """Unpack a tar file under a folder of the box.

        Raises:
            BoxLost, ProtocolError, PhaseTimeout, StableError: The agent could not write.
        """
        with tar.open("rb") as file:
            try:
                with anyio.fail_after(self.transfer_limit_s):
                    return await self._agent().put(Put(folder=folder), _chunks(file))
            except TimeoutError as error:
                raise PhaseTimeout("copy in", self.transfer_limit_s) from error
            except BoxLost as error:
                raise await self._explained(error) from error

    async def clock(self) -> Clock:
        """Read the guest's clocks.

        Raises:
            BoxLost, ProtocolError, PhaseTimeout
        """
        try:
            return await self._agent().clock()
        except BoxLost as error:
            raise await self._explained(error) from error

    async def stop(self) -> None:
        """End the box: politely, then by force. Returns when nothing of it runs any more; safe to repeat."""
        if self._stopping is not None:
            await self._stopping.wait()
            return
        self._stopping = anyio.Event()
        connection = self._connection
        try:  # nothing may wait before this: a canceled caller still has to end the box
            if connection is not None and connection.lost is None:
                with anyio.move_on_after(self.stop_limit_s), suppress(MetalmarkError):
                    await connection.poweroff()
                    await connection.ended()
        finally:
            with anyio.CancelScope(shield=True):
                try:
                    await self._end()
                finally:
                    self._stopped = True
                    self._stopping.set()
                if connection is not None:
                    await connection.close()

    def _agent(self) -> AgentConnection:
        if self._connection is None or self._ready is None:
            raise BoxLost("the box has not started")
        return self._connection

    async def _boot_hint(self) -> str:
        return "run it with --debug-boot and read console.log" if self.own_kernel and not self.spec.debug_boot else ""

    async def _explained(self, error: BoxLost) -> MetalmarkError:
        """The driver's own finding, which says more than that a channel ended."""
        cause = None
        with anyio.move_on_after(_CAUSE_LIMIT_S):
            cause = await self._cause()
        return cause or error

    def _spans(self, began_ns: int, spawned_ns: int, ready_ns: int) -> tuple[PhaseSpan, ...]:
        # The agent's share is what passed on the guest's clock between its first instruction and READY: the host
        # cannot see the moment when the kernel hands over.
        assert self._hello is not None
        assert self._ready is not None
        rest_ns = ready_ns - spawned_ns
        agent_ns = min(rest_ns, max(0, self._ready.monotonic_ns - self._hello.monotonic_ns))
        if not self.own_kernel:
            agent_ns = rest_ns
        handed_ns = ready_ns - agent_ns
        return (
            PhaseSpan(phase=Phase.SPAWN, start_ns=began_ns, duration_ns=spawned_ns - began_ns),
            PhaseSpan(phase=Phase.KERNEL, start_ns=spawned_ns, duration_ns=handed_ns - spawned_ns),
            PhaseSpan(phase=Phase.AGENT, start_ns=handed_ns, duration_ns=agent_ns),
        )


class _BoxExecution(Execution):
    """A command of a box: the agent's account of it, completed by the driver."""

    def __init__(self, box: AgentBox, execution: AgentExecution) -> None:
        self._box = box
        self._execution = execution

    async def started(self) -> None:
        """Wait until the program runs, or the command has ended without, or the box went away."""
        await self._execution.started()

    async def wait(self) -> Exited:
        """Wait for its end.

        Raises:
            BoxLost: The box went away first.
            ProtocolError: The agent broke the protocol.
        """
        try:
            return await self._box._accounted(await self._execution.wait())  # noqa: SLF001 - two classes of one noun
        except BoxLost as error:
            raise await self._box._explained(error) from error  # noqa: SLF001 - two classes of one noun

    async def signal(self, number: int) -> None:
        """Send a signal to every process of the command; nothing happens when it has ended."""
        await self._execution.signal(number)

    async def write(self, data: bytes) -> None:
        """Feed stdin (the request must have asked for it); waits while the command does not read."""
        await self._execution.write(data)

    async def close_stdin(self) -> None:
        """End stdin."""
        await self._execution.close_stdin()


async def _chunks(file: IO[bytes]) -> AsyncIterator[bytes]:
    while data := await in_thread(file.read, _CHUNK_BYTES):
        yield data
