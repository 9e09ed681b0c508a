"""QEMU's control socket: the ``qemu.qmp`` library with a deadline and a response limit on each call."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from typing import Final

import anyio
from qemu.qmp import ExecuteError, Message, QMPClient, QMPError

from metalmark.model import BoxLost, MetalmarkError, NoSpace, PhaseTimeout, ProtocolError

CALL_LIMIT_S: Final = 5.0
START_LIMIT_S: Final = 120.0
"""Until QEMU speaks at all: the deadline of the box's start, which heeds how busy the host is, is mostly shorter."""
RESPONSE_LIMIT_BYTES: Final = 1024 * 1024

Json = Mapping[str, object]


class Monitor:
    """One QMP connection.

    Args:
        limit_s: Deadline of each call.
        start_limit_s: Deadline of the first answer.
    """

    def __init__(self, *, limit_s: float = CALL_LIMIT_S, start_limit_s: float = START_LIMIT_S) -> None:
        self._client = QMPClient("metalmark", readbuflen=RESPONSE_LIMIT_BYTES)
        self._limit_s = limit_s
        self._start_limit_s = start_limit_s

    async def connect(self, connection: socket.socket) -> None:
        """Take a connected socket, and negotiate.

        Raises:
            PhaseTimeout: QEMU does not answer.
            BoxLost: QEMU has ended.
        """
        await self._bounded("QMP greeting", self._client.connect(connection), self._start_limit_s)

    async def call(self, command: str, arguments: Json | None = None) -> object:
        """Run a command and return its answer.

        Raises:
            PhaseTimeout: No answer in time.
            BoxLost: QEMU has ended.
            ProtocolError: QEMU refused the command, or its answer is over the limit.
        """
        return await self._bounded(f"QMP {command}", self._client.execute(command, arguments), self._limit_s)

    async def vcpu_threads(self) -> tuple[int, ...]:
        """Return the thread ids of the guest's CPUs, in their order.

        Raises:
            PhaseTimeout, BoxLost, ProtocolError
        """
        answer = await self.call("query-cpus-fast")
        try:
            assert isinstance(answer, list)
            entries = sorted(answer, key=lambda entry: int(entry["cpu-index"]))
            return tuple(int(entry["thread-id"]) for entry in entries)
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise ProtocolError("QEMU lists its CPUs in a way unknown here") from error

    async def watch(self, on_fault: Callable[[MetalmarkError], None]) -> None:
        """Follow the events until the connection ends, and report each that means the box is no good any more."""
        with self._client.listener(("STOP", "GUEST_PANICKED", "BLOCK_IO_ERROR", "MEMORY_FAILURE")) as listener:
            async for event in listener:
                fault = await self._fault(event)
                if fault is not None:
                    on_fault(fault)

    async def close(self) -> None:
        """Give the connection back; safe to repeat, and whatever state it is in."""
        with anyio.CancelScope(shield=True), anyio.move_on_after(1.0):
            try:
                await self._client.disconnect()
            except (QMPError, OSError, EOFError):
                # The connection broke before: this is where the library tells, and it is closed all the same.
                return

    async def _fault(self, event: Message) -> MetalmarkError | None:
        data = event.get("data", {})
        match event["event"]:
            case "STOP":
                status = await self.call("query-status")
                state = status.get("status") if isinstance(status, Mapping) else None
                return None if state in ("running", "shutdown") else stopped(str(state))
            case "BLOCK_IO_ERROR" if isinstance(data, Mapping):
                return disk_failed(data)
            case "GUEST_PANICKED":
                return BoxLost("the guest's kernel panicked")
            case "MEMORY_FAILURE":
                return BoxLost("the host's memory has a fault, and the guest used it")
        return None

    async def _bounded(self, what: str, work: asyncio.Future[object] | object, limit_s: float) -> object:
        try:
            with anyio.fail_after(limit_s):
                return await work  # type: ignore[misc]  # the library's methods are decorated into plain Any
        except TimeoutError as error:
            raise PhaseTimeout(what, limit_s) from error
        except ExecuteError as error:
            raise ProtocolError(f"QEMU refused {what.removeprefix('QMP ')}", why=str(error)) from error
        except (QMPError, OSError, EOFError, asyncio.IncompleteReadError, ValueError) as error:
            raise BoxLost(f"the connection to QEMU broke in {what}", why=str(error)) from error


def stopped(state: str) -> BoxLost:
    """Return the error for a guest that QEMU has stopped by itself."""
    if state == "internal-error":
        return BoxLost("KVM met an instruction that it cannot run", why="/dev/kvm of this host does not really work")
    return BoxLost(f"QEMU stopped the guest (state {state})")


def disk_failed(data: Mapping[str, object]) -> MetalmarkError | None:
    """Return the error for a BLOCK_IO_ERROR event; a read error is the guest's own matter."""
    if data.get("operation") != "write":
        return None
    reason = str(data.get("reason", ""))
    # "nospace" is set only for disks that QEMU would stop the guest for.
    if data.get("nospace") or "No space left" in reason or "quota exceeded" in reason:
        return NoSpace(
            "no space left on the host for a box's disk",
            why="what the benchmark wrote could not be kept",
            hint="free some with `metalmark image gc`, or set METALMARK_HOME to a larger file system",
        )
    return BoxLost("the host could not write a box's disk", why=reason)
