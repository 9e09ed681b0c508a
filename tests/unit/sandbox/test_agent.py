"""The connection to an agent that does as it likes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from errno import ENOENT, ENOSPC, EPERM

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metalmark.model import BoxLost, MetalmarkError, NoPermission, NoSpace, ProtocolError, StableError
from metalmark.sandbox import AgentConnection, Stream
from metalmark.testing.fake_agent import FakeAgent
from metalmark.wire import (
    HEADER_BYTES,
    INPUT_WINDOW_BYTES,
    MAX_PAYLOAD_BYTES,
    ClockTag,
    CreditTag,
    DoneTag,
    Ending,
    Exec,
    FaultTag,
    Frame,
    Get,
    Kind,
    Put,
    Setup,
    encode,
    pack,
)

pytestmark = pytest.mark.anyio
TRUE = Exec(argv=("true",), stream_bytes=10)
CAT = Exec(argv=("cat",), stream_bytes=10, stdin=True)
GET = Get(patterns=("*",), max_bytes=100, max_files=1)
DONE = pack([(DoneTag.FILES, 1), (DoneTag.BYTES, 2), (DoneTag.TRUNCATED, 1), (DoneTag.MISSING, b"no\xff")])


def nowhere(stream: Stream, data: bytes) -> None:
    """An output sink."""


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[FakeAgent, AgentConnection]]:
    """A fake agent, and the connection to it."""
    agent = FakeAgent()
    connection = AgentConnection(agent.stream)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(connection.serve)
            with anyio.fail_after(10):
                yield agent, connection
            await connection.close()
    finally:
        await agent.hang_up()


async def test_hello_setup_and_ready() -> None:
    async with connected() as (agent, connection):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(agent.set_up)
            assert (await connection.hello()).kernel == "6.1-fake"
            ready = await connection.setup(Setup(hostname="box"))
        assert (ready.monotonic_ns, ready.memory_max_bytes) == (5_000, 7)


async def test_another_protocol_is_refused() -> None:
    async with connected() as (agent, connection):
        await agent.greet(protocol=2)
        with pytest.raises(ProtocolError, match="protocol 2"):
            await connection.hello()


@pytest.mark.parametrize(
    ("code", "error"), [(ENOSPC, NoSpace), (EPERM, NoPermission), (ENOENT, StableError), (0, StableError)]
)
async def test_a_fault_is_a_typed_error(code: int, error: type[MetalmarkError]) -> None:
    fault = pack([(FaultTag.CODE, code), (FaultTag.MESSAGE, b"cannot mount the base")])
    async with connected() as (agent, connection):
        async with anyio.create_task_group() as tasks:

            async def refuse() -> None:
                await agent.receive()
                await agent.send(Kind.FAULT, 0, fault)

            tasks.start_soon(refuse)
            with pytest.raises(error, match="cannot mount the base"):
                await connection.setup(Setup())


async def test_commands_on_their_own_streams() -> None:
    async with connected() as (agent, connection):
        heard: list[tuple[int, Stream, bytes]] = []
        first = await connection.exec(TRUE, lambda stream, data: heard.append((1, stream, data)))
        second = await connection.exec(TRUE, lambda stream, data: heard.append((2, stream, data)))
        one, two = (await agent.receive()).stream, (await agent.receive()).stream
        assert one != two
        await agent.send(Kind.STDOUT, two, b"b")
        await agent.send(Kind.STDERR, one, b"a")
        await agent.exit(two, 2)
        assert (await second.wait()).code == 2
        await agent.exit(one, 1, ending=Ending.SIGNALED)
        assert (await first.wait()).ending is Ending.SIGNALED
        assert heard == [(2, Stream.STDOUT, b"b"), (1, Stream.STDERR, b"a")]
        assert (await first.wait()).code == 1  # again


async def test_a_request_that_cannot_be_carried_out() -> None:
    async with connected() as (agent, connection):
        execution = await connection.exec(TRUE, nowhere)
        stream = (await agent.receive()).stream
        await agent.send(Kind.FAULT, stream, pack([(FaultTag.MESSAGE, b"too many commands")]))
        with pytest.raises(StableError, match="too many commands"):
            await execution.wait()
        await execution.started()
        assert connection.lost is None


async def test_a_sink_that_fails_takes_only_its_own_command_along() -> None:
    def full(stream: Stream, data: bytes) -> None:
        raise NoSpace("the disk is full")

    async with connected() as (agent, connection):
        broken = await connection.exec(TRUE, full)
        whole = await connection.exec(TRUE, nowhere)
        for execution in (await agent.receive(), await agent.receive()):
            await agent.send(Kind.STDOUT, execution.stream, b"x")
            await agent.send(Kind.STDOUT, execution.stream, b"y")
            await agent.exit(execution.stream)
        assert (await whole.wait()).code == 0
        with pytest.raises(NoSpace, match="disk is full"):
            await broken.wait()


EXEC, FETCH = "exec", "get"


@pytest.mark.parametrize(
    ("request_kind", "kind", "stream", "payload"),
    [
        pytest.param(EXEC, Kind.STDOUT, 99, b"x", id="a stream that nobody opened"),
        pytest.param(EXEC, Kind.STDOUT, 0, b"x", id="output of the box"),
        pytest.param(EXEC, Kind.STDOUT, 1, b"12345678901", id="more output than asked for"),
        pytest.param(EXEC, Kind.DATA, 1, b"x", id="files on a command's stream"),
        pytest.param(EXEC, Kind.DONE, 1, DONE, id="a transfer's end on a command's stream"),
        pytest.param(EXEC, Kind.CREDIT, 1, pack([(CreditTag.BYTES, 1)]), id="credit for no input"),
        pytest.param(EXEC, Kind.EXITED, 1, b"\x01\x02", id="a malformed end"),
        pytest.param(EXEC, Kind.EXITED, 1, pack([(1, 99)]), id="an unknown ending"),
        pytest.param(EXEC, Kind.HELLO, 0, pack([(1, 1)]), id="a second greeting"),
        pytest.param(EXEC, Kind.READY, 0, b"", id="ready unasked"),
        pytest.param(EXEC, Kind.CLOCK_IS, 0, b"", id="time unasked"),
        pytest.param(EXEC, Kind.FAULT, 0, b"", id="a fault of nothing"),
        pytest.param(EXEC, 0x7E, 1, b"", id="an unknown type"),
        pytest.param(EXEC, Kind.EXEC, 1, b"", id="a host's type"),
        pytest.param(FETCH, Kind.STDOUT, 1, b"x", id="output on a transfer's stream"),
        pytest.param(FETCH, Kind.DATA, 1, bytes(100 + 3 * 16 * 1024 + 1), id="more files than asked for"),
        pytest.param(FETCH, Kind.CREDIT, 1, pack([(CreditTag.BYTES, 1)]), id="credit for a fetch"),
    ],
)
async def test_what_an_agent_must_not_send(request_kind: str, kind: int, stream: int, payload: bytes) -> None:
    async with connected() as (agent, connection):
        await agent.greet()
        await connection.hello()

        async def misbehave() -> None:
            await agent.receive()
            await agent.send(kind, stream, payload)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(misbehave)
            with pytest.raises(ProtocolError):
                if request_kind == EXEC:
                    await (await connection.exec(TRUE, nowhere)).wait()
                else:
                    await connection.get(GET, lambda data: None)
        assert isinstance(connection.lost, ProtocolError)
        with pytest.raises(ProtocolError):
            await connection.clock()


async def test_started_comes_once() -> None:
    async with connected() as (agent, connection):
        execution = await connection.exec(TRUE, nowhere)
        await agent.receive()
        await agent.send(Kind.STARTED, 1)
        await execution.started()
        await agent.send(Kind.STARTED, 1)
        with pytest.raises(ProtocolError):
            await execution.wait()


async def test_frames_that_come_late_are_passed_over() -> None:
    async with connected() as (agent, connection):
        execution = await connection.exec(CAT, nowhere)
        await agent.receive()
        await agent.exit(1)
        await execution.wait()
        await agent.send(Kind.STDOUT, 1, b"late")
        await agent.send(Kind.CREDIT, 1, pack([(CreditTag.BYTES, 5)]))
        await execution.signal(15)
        await execution.write(b"late")
        await execution.close_stdin()
        again = await connection.exec(TRUE, nowhere)
        frame = await agent.receive()
        assert (frame.kind, frame.stream) == (Kind.EXEC, 2)
        await agent.exit(2)
        assert (await again.wait()).code == 0


async def test_an_oversized_frame_is_refused_before_its_content_comes() -> None:
    async with connected() as (agent, connection):
        header = bytearray(encode(Frame(kind=Kind.HELLO, stream=0))[:HEADER_BYTES])
        header[5:9] = (MAX_PAYLOAD_BYTES + 1).to_bytes(4, "little")
        await agent.send_bytes(bytes(header))
        with pytest.raises(ProtocolError, match="announces"):
            await connection.hello()


@pytest.mark.parametrize("partial", [b"", b"\x86\x01"])
async def test_everybody_who_waits_learns_of_the_end(partial: bytes) -> None:
    async with connected() as (agent, connection):
        execution = await connection.exec(CAT, nowhere)
        errors: list[BoxLost] = []

        async def expect_loss(what: object) -> None:
            with pytest.raises(BoxLost) as caught:
                await what  # type: ignore[misc]
            errors.append(caught.value)

        async with anyio.create_task_group() as tasks:
            for wait in (execution.wait(), connection.hello(), connection.clock(), connection.get(GET, lambda _: None)):
                tasks.start_soon(expect_loss, wait)
            await anyio.wait_all_tasks_blocked()
            await execution.write(bytes(INPUT_WINDOW_BYTES))
            tasks.start_soon(execution.write, b"waits for credit, then drops")
            await anyio.wait_all_tasks_blocked()
            if partial:
                await agent.send_bytes(partial)
            await agent.hang_up()
        assert len(errors) == 4
        with pytest.raises(BoxLost):
            await connection.exec(TRUE, nowhere)
        await connection.ended()


async def test_input_keeps_to_the_window() -> None:
    async with connected() as (agent, connection):
        execution = await connection.exec(CAT, nowhere)
        await agent.receive()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(execution.write, bytes(INPUT_WINDOW_BYTES + 100))
            assert len((await agent.receive()).payload) == INPUT_WINDOW_BYTES
            await anyio.wait_all_tasks_blocked()
            with anyio.move_on_after(0.05) as scope:
                await agent.receive()
            assert scope.cancelled_caught, "input beyond the window"
            await agent.send(Kind.CREDIT, 1, pack([(CreditTag.BYTES, 60)]))
            assert len((await agent.receive()).payload) == 60
            await agent.send(Kind.CREDIT, 1, pack([(CreditTag.BYTES, 1000)]))
            assert len((await agent.receive()).payload) == 40
        await execution.close_stdin()
        assert (await agent.receive()).payload == b""


@pytest.mark.parametrize("credit", [0, 11, 2**63])
async def test_credit_for_what_was_not_sent_is_refused(credit: int) -> None:
    async with connected() as (agent, connection):
        execution = await connection.exec(CAT, nowhere)
        await execution.write(bytes(10))
        await agent.send(Kind.CREDIT, 1, pack([(CreditTag.BYTES, credit)]))
        with pytest.raises(ProtocolError, match="credit"):
            await execution.wait()


async def test_files_out_and_in() -> None:
    async with connected() as (agent, connection):

        async def serve() -> None:
            await agent.receive()
            await agent.send(Kind.DATA, 1, b"tar")
            await agent.send(Kind.DONE, 1, DONE)
            assert (await agent.receive()).kind == Kind.PUT
            assert (await agent.receive()).payload == b"archive"
            assert (await agent.receive()).payload == b""
            await agent.send(Kind.CREDIT, 2, pack([(CreditTag.BYTES, 7)]))
            await agent.send(Kind.DONE, 2, DONE)

        async def chunks() -> AsyncIterator[bytes]:
            yield b"archive"

        received = bytearray()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve)
            done = await connection.get(GET, received.extend)
            assert (done.files, done.transferred_bytes, done.truncated) == (1, 2, True)
            assert done.missing == ("no\udcff",)
            await connection.put(Put(folder="/x"), chunks())
        assert received == b"tar"


async def test_a_put_that_fails_early_ends_early() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1000)

    async with connected() as (agent, connection):
        async with anyio.create_task_group() as tasks:

            async def refuse() -> None:
                while (await agent.receive()).kind != Kind.INPUT:
                    pass
                await agent.send(Kind.FAULT, 1, pack([(FaultTag.CODE, ENOSPC), (FaultTag.MESSAGE, b"full")]))

            tasks.start_soon(refuse)
            with pytest.raises(NoSpace), anyio.fail_after(5):
                await connection.put(Put(folder="/x"), endless())
            tasks.cancel_scope.cancel()


async def test_a_fetch_that_is_canceled_is_called_off_in_the_guest() -> None:
    async with connected() as (agent, connection):
        with anyio.move_on_after(0.05):
            await connection.get(GET, lambda data: None)
        assert (await agent.receive()).kind == Kind.GET
        frame = await agent.receive()
        assert (frame.kind, frame.stream) == (Kind.SIGNAL, 1)
        await agent.send(Kind.DATA, 1, b"still under way")
        await agent.send(Kind.FAULT, 1, b"")
        async with anyio.create_task_group() as tasks:

            async def tell() -> None:
                await agent.receive()
                await agent.send(Kind.CLOCK_IS, 0, pack([(ClockTag.MONOTONIC_NS, 5), (ClockTag.REALTIME_NS, 6)]))

            tasks.start_soon(tell)
            assert (await connection.clock()).monotonic_ns == 5


async def test_a_canceled_sender_leaves_no_half_frame() -> None:
    agent = FakeAgent(pieces=0)
    connection = AgentConnection(agent.stream)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(connection.serve)
            scope = anyio.CancelScope()

            async def doomed() -> None:
                with scope:
                    await connection.exec(TRUE, nowhere)

            tasks.start_soon(doomed)
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
            await anyio.wait_all_tasks_blocked()
            assert (await agent.receive()).kind == Kind.EXEC
            tasks.start_soon(connection.poweroff)
            assert (await agent.receive()).kind == Kind.POWEROFF
            await connection.close()
    finally:
        await agent.hang_up()


@settings(max_examples=60, deadline=None)
@given(data=st.lists(st.binary(max_size=60), max_size=10))
def test_garbage_never_escapes_as_anything_else(data: list[bytes]) -> None:
    async def play() -> None:
        async with connected() as (agent, connection):
            execution = await connection.exec(CAT, nowhere)
            with suppress(anyio.BrokenResourceError):  # the connection has had enough
                for piece in data:
                    await agent.send_bytes(piece)
            await agent.hang_up()
            with pytest.raises((BoxLost, ProtocolError, StableError)):
                await execution.wait()
                raise StableError("noise has ended the command by the rules")

    anyio.run(play)
