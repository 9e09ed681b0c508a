"""The real guest agent in ``serve`` mode at the other end of a socket pair, for tests without a sandbox around it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

import anyio
from anyio.abc import UNIXSocketStream

from metalmark.model import DEFAULT_PATH
from metalmark.sandbox import AgentConnection, Stream
from metalmark.system import Child, spawn
from metalmark.wire import Exec, Exited

_ENV = (f"PATH={DEFAULT_PATH}",)
_PLENTY = 64 * 1024 * 1024


@dataclass(kw_only=True)
class Result:
    """What a command printed, and how it ended."""

    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    exited: Exited | None = None

    def take(self, stream: Stream, data: bytes) -> None:
        """An output sink."""
        (self.stdout if stream is Stream.STDOUT else self.stderr).extend(data)

    @property
    def end(self) -> Exited:
        """Its end."""
        assert self.exited is not None
        return self.exited


@dataclass(kw_only=True)
class RunningAgent:
    """An agent, and the connection to it."""

    child: Child
    connection: AgentConnection

    async def run(
        self,
        *argv: str,
        stream_bytes: int = _PLENTY,
        env: tuple[str, ...] = _ENV,
        workdir: str = "/",
        user: str = "",
        hold: bool = False,
        grace_ms: int = 1000,
    ) -> Result:
        """Run a command to its end."""
        result = Result()
        request = Exec(
            argv=argv, env=env, stream_bytes=stream_bytes, workdir=workdir, user=user, hold=hold, grace_ms=grace_ms
        )
        execution = await self.connection.exec(request, result.take)
        result.exited = await execution.wait()
        return result


@dataclass(frozen=True, kw_only=True)
class AgentProgram:
    """One build of the agent."""

    argv: tuple[str, ...]
    """The agent, and what runs it."""
    kind: str
    """``native``, ``sanitized`` or ``aarch64``."""

    @property
    def emulated(self) -> bool:
        """Whether user-mode emulation runs it, which lacks PR_SET_CHILD_SUBREAPER among others."""
        return self.kind == "aarch64"


StartAgent = Callable[[], AbstractAsyncContextManager[RunningAgent]]
"""Starts an agent and sets it up."""


@asynccontextmanager
async def running_agent(
    argv: Sequence[str], *, env: Mapping[str, str] | None = None, limit_s: float = 60.0
) -> AsyncIterator[RunningAgent]:
    """Start an agent that has greeted; on leaving, have it end, cleanly unless it was killed meanwhile.

    Args:
        argv: The agent and what runs it, up to ``serve``.
        env: Its environment.
        limit_s: How long all may take.
    """
    ours, theirs = socket.socketpair()
    child = spawn([*argv, "serve", str(theirs.fileno())], pass_fds=[theirs.fileno()], stderr=2, env=env)
    theirs.close()
    try:
        connection = AgentConnection(await UNIXSocketStream.from_socket(ours))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(connection.serve)
            with anyio.fail_after(limit_s):
                await connection.hello()
                yield RunningAgent(child=child, connection=connection)
            if connection.lost is None:
                with anyio.fail_after(10):
                    await connection.poweroff()
                    assert await child.wait() == 0, "the agent did not end cleanly"
            tasks.cancel_scope.cancel()
    finally:
        child.close()
        ours.close()
