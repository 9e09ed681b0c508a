"""Commands: how they end, what they print, and what becomes of their descendants."""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path

import anyio
import pytest

from metalmark.sandbox import Stream
from metalmark.testing.running_agent import AgentProgram, Result, StartAgent
from metalmark.wire import Ending, Exec

pytestmark = pytest.mark.anyio
MIB = 1024 * 1024


async def test_exit_code_and_both_streams(start_agent: StartAgent) -> None:
    async with start_agent() as agent:
        result = await agent.run("sh", "-c", "echo out; echo err >&2; exit 42")
        assert (result.end.ending, result.end.code) == (Ending.EXITED, 42)
        assert (bytes(result.stdout), bytes(result.stderr)) == (b"out\n", b"err\n")
        assert (result.end.stdout_bytes, result.end.stderr_bytes) == (4, 4)
        assert 0 < result.end.started_ns <= result.end.ended_ns


async def test_signal_that_ended_it(start_agent: StartAgent) -> None:
    async with start_agent() as agent:
        result = await agent.run("sh", "-c", "kill -SEGV $$")
        assert (result.end.ending, result.end.code) == (Ending.SIGNALED, signal.SIGSEGV)


async def test_arguments_and_variables_arrive_byte_for_byte(start_agent: StartAgent) -> None:
    odd = os.fsdecode(b"caf\xe9 \n\t'\"$")
    async with start_agent() as agent:
        result = await agent.run(
            "/bin/sh", "-c", 'printf "%s|%s" "$1" "$ODD"', "sh", odd, env=(f"ODD={odd}", "PATH=/usr/bin:/bin")
        )
        assert result.stdout == os.fsencode(f"{odd}|{odd}")


async def test_large_environment(start_agent: StartAgent) -> None:
    variables = tuple(f"V{n}={'x' * 1000}" for n in range(500))
    async with start_agent() as agent:
        result = await agent.run("/usr/bin/env", env=variables)
        assert result.end.code == 0
        assert sum(line.startswith(b"V") for line in result.stdout.split(b"\n")) == 500


@pytest.mark.parametrize(
    ("argv", "ending", "code"),
    [
        (("no-such-program",), Ending.NOT_FOUND, errno.ENOENT),
        (("/no/such/program",), Ending.NOT_FOUND, errno.ENOENT),
        (("/etc/passwd/x",), Ending.NOT_FOUND, errno.ENOTDIR),
        (("",), Ending.NOT_FOUND, errno.ENOENT),
        (("/etc",), Ending.NOT_EXECUTABLE, errno.EACCES),
        (("/etc/passwd",), Ending.NOT_EXECUTABLE, errno.EACCES),
    ],
)
async def test_what_never_ran(start_agent: StartAgent, argv: tuple[str, ...], ending: Ending, code: int) -> None:
    async with start_agent() as agent:
        result = await agent.run(*argv)
        assert (result.end.ending, result.end.code) == (ending, code)
        assert argv[0] in result.end.message
        assert result.stdout == b""


async def test_a_script_without_an_interpreter_line_is_not_executable(
    start_agent: StartAgent, program: AgentProgram, tmp_path: Path
) -> None:
    if program.emulated:
        pytest.skip("under user-mode emulation execve is the emulator's")
    script = tmp_path / "script"
    script.write_text("echo never\n")
    script.chmod(0o755)
    async with start_agent() as agent:
        result = await agent.run(str(script))
        assert (result.end.ending, result.end.code) == (Ending.NOT_EXECUTABLE, errno.ENOEXEC)


async def test_a_missing_interpreter_is_told_from_a_missing_program(start_agent: StartAgent, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    async with start_agent() as agent:
        result = await agent.run("script", env=(f"PATH={tmp_path}",))
        assert result.end.ending is Ending.NOT_EXECUTABLE
        assert "interpreter" in result.end.message


async def test_a_program_later_on_the_path_wins_over_one_that_may_not_run(
    start_agent: StartAgent, tmp_path: Path
) -> None:
    (tmp_path / "true").write_text("not a program")
    async with start_agent() as agent:
        result = await agent.run("true", env=(f"PATH={tmp_path}:/usr/bin:/bin",))
        assert (result.end.ending, result.end.code) == (Ending.EXITED, 0)


async def test_working_folder(start_agent: StartAgent, tmp_path: Path) -> None:
    async with start_agent() as agent:
        result = await agent.run("/bin/pwd", workdir=str(tmp_path))
        assert result.stdout.decode().strip() == str(tmp_path)
        result = await agent.run("true", workdir=str(tmp_path / "none"))
        assert (result.end.ending, result.end.message) == (Ending.NO_WORKDIR, str(tmp_path / "none"))
        (tmp_path / "file").write_text("")
        result = await agent.run("true", workdir=str(tmp_path / "file"))
        assert (result.end.ending, result.end.code) == (Ending.NO_WORKDIR, errno.ENOTDIR)


async def test_the_process_starts_with_nothing_but_its_streams(start_agent: StartAgent) -> None:
    script = (
        "import os, signal; print(sorted(os.listdir('/proc/self/fd'))[:4]);"
        "print(os.getsid(0) == os.getpid(), os.readlink('/proc/self/fd/0'));"
        "print([l.split()[1] for l in open('/proc/self/status') if l.startswith(('SigBlk', 'ShdPnd'))])"
    )
    async with start_agent() as agent:
        result = await agent.run(sys.executable, "-S", "-c", script)
        # The listing itself is the fourth descriptor.
        assert result.stdout.decode().splitlines()[:2] == ["['0', '1', '2', '3']", "True /dev/null"], result.stderr
        assert "'0000000000000000', '0000000000000000'" in result.stdout.decode()


async def test_output_beyond_the_bound_is_dropped_and_counted(start_agent: StartAgent) -> None:
    async with start_agent() as agent:
        result = await agent.run("sh", "-c", "head -c 3000000 /dev/zero; echo x >&2", stream_bytes=100_000)
        assert len(result.stdout) == 100_000
        assert (result.end.stdout_bytes, result.end.stderr_bytes) == (3_000_000, 2)
        assert result.end.code == 0


async def test_held_output_comes_after_the_end_and_whole(start_agent: StartAgent) -> None:
    arrived: list[float] = []
    result = Result()

    def sink(stream: Stream, data: bytes) -> None:
        arrived.append(anyio.current_time())
        result.take(stream, data)

    async with start_agent() as agent:
        began = anyio.current_time()
        request = Exec(
            argv=("sh", "-c", "head -c 300000 /dev/zero; sleep 0.4; echo end"), env=("PATH=/usr/bin:/bin",),
            stream_bytes=MIB, hold=True,
        )  # fmt: skip
        end = await (await agent.connection.exec(request, sink)).wait()
    assert arrived[0] - began > 0.39
    assert result.stdout == b"\0" * 300_000 + b"end\n"
    assert end.stdout_bytes == len(result.stdout)


async def test_live_output_comes_in_few_frames_but_the_first_at_once(start_agent: StartAgent) -> None:
    arrived: list[float] = []
    async with start_agent() as agent:
        began = anyio.current_time()
        request = Exec(
            argv=("sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10; do echo $i; sleep 0.05; done"),
            env=("PATH=/usr/bin:/bin",), stream_bytes=MIB,
        )  # fmt: skip
        execution = await agent.connection.exec(request, lambda stream, data: arrived.append(anyio.current_time()))
        await execution.wait()
        took = anyio.current_time() - began
    assert 2 <= len(arrived) <= 2 + took / 0.25
    assert arrived[0] - began < 0.45 * took


async def test_descendants_may_finish_within_the_grace(start_agent: StartAgent, program: AgentProgram) -> None:
    if program.emulated:
        pytest.skip("user-mode emulation has no PR_SET_CHILD_SUBREAPER")
    async with start_agent() as agent:
        result = await agent.run("sh", "-c", "(sleep 0.2; echo late) & exit 0", grace_ms=10_000)
        assert result.stdout == b"late\n"
        assert (result.end.code, result.end.left_killed) == (0, 0)


async def test_descendants_beyond_the_grace_are_killed_however_they_hid(
    start_agent: StartAgent, program: AgentProgram
) -> None:
    if program.emulated:
        pytest.skip("user-mode emulation has no PR_SET_CHILD_SUBREAPER")
    seconds = f"1000.{os.getpid()}"  # told from those of others on this machine
    hidden = (
        f"sleep {seconds} & setsid sleep {seconds} & (setsid sh -c 'sleep {seconds} & exec sleep {seconds}' &); echo ok"
    )
    async with start_agent() as agent:
        with anyio.fail_after(20):
            result = await agent.run("sh", "-c", hidden, grace_ms=100)
        assert result.stdout == b"ok\n"
        assert (result.end.code, result.end.left_killed) == (0, 4)
        left = await agent.run("sh", "-c", f"ps -eo args | grep -c '^sleep {seconds}'")
        assert left.stdout.strip() == b"0"


async def test_the_end_of_the_agent_is_the_end_of_its_commands(start_agent: StartAgent, program: AgentProgram) -> None:
    if program.emulated:
        pytest.skip("user-mode emulation has no PR_SET_CHILD_SUBREAPER")
    output = Result()
    async with start_agent() as agent:
        request = Exec(argv=("sh", "-c", "echo $$; exec sleep 1000"), env=("PATH=/usr/bin:/bin",), stream_bytes=100)
        await agent.connection.exec(request, output.take)
        while not output.stdout:
            await anyio.sleep(0.01)
        agent.child.signal(signal.SIGKILL)
        await agent.connection.ended()
        pid = int(output.stdout)
        with anyio.fail_after(10):
            while Path(f"/proc/{pid}/stat").exists() and "sleep" in Path(f"/proc/{pid}/cmdline").read_text():
                await anyio.sleep(0.01)


async def test_signals_reach_every_process_of_a_command(start_agent: StartAgent) -> None:
    inner = 'trap "echo inner; exit 0" TERM; echo up; while :; do sleep 0.05; done'
    script = f"trap 'echo outer; wait; exit 3' TERM; sh -c '{inner}' & wait"
    output = Result()
    async with start_agent() as agent:
        request = Exec(argv=("sh", "-c", script), env=("PATH=/usr/bin:/bin",), stream_bytes=1000)
        execution = await agent.connection.exec(request, output.take)
        while not output.stdout:
            await anyio.sleep(0.01)
        await execution.signal(signal.SIGTERM)
        end = await execution.wait()
    assert sorted(output.stdout.split()) == [b"inner", b"outer", b"up"]
    assert (end.ending, end.code) == (Ending.EXITED, 3)


async def test_kill_ends_a_command_that_ignores_everything_else(start_agent: StartAgent) -> None:
    async with start_agent() as agent:
        request = Exec(
            argv=("sh", "-c", "trap '' TERM INT HUP; (trap '' TERM; sleep 1000) & echo up; sleep 1000"),
            env=("PATH=/usr/bin:/bin",), stream_bytes=1000,
        )  # fmt: skip
        output = Result()
        execution = await agent.connection.exec(request, output.take)
        while not output.stdout:
            await anyio.sleep(0.01)
        await execution.signal(signal.SIGKILL)
        with anyio.fail_after(10):
            end = await execution.wait()
        assert (end.ending, end.code) == (Ending.SIGNALED, signal.SIGKILL)
        await execution.signal(signal.SIGTERM)  # late: nothing happens


async def test_a_command_that_kills_its_keeper_is_still_accounted_for(
    start_agent: StartAgent, program: AgentProgram
) -> None:
    if program.emulated:
        pytest.skip("user-mode emulation has no PR_SET_CHILD_SUBREAPER")
    async with start_agent() as agent:
        with anyio.fail_after(20):
            result = await agent.run("sh", "-c", "sleep 1000 & kill -9 $PPID; sleep 0.2; echo on; exit 7")
        assert (result.end.ending, result.end.code, result.stdout) == (Ending.EXITED, 7, b"on\n")
        assert result.end.left_killed == 1
        assert (await agent.run("true")).end.code == 0


async def test_many_commands_at_once(start_agent: StartAgent) -> None:
    results: dict[int, Result] = {}
    async with start_agent() as agent:

        async def one(number: int) -> None:
            results[number] = await agent.run("sh", "-c", f"sleep 0.0{number % 10}; echo {number}; exit {number}")

        async with anyio.create_task_group() as tasks:
            for number in range(40):
                tasks.start_soon(one, number)
    assert {number: (result.end.code, int(result.stdout)) for number, result in results.items()} == {
        number: (number, number) for number in range(40)
    }


async def test_processor_time_and_memory_of_descendants_count(start_agent: StartAgent, program: AgentProgram) -> None:
    if program.emulated:
        pytest.skip("under user-mode emulation the emulator's own memory counts")
    burn = "import time; block = bytearray(64 << 20)\nwhile time.process_time() < 0.3: pass"
    async with start_agent() as agent:
        result = await agent.run("sh", "-c", '"$0" -S -c "$1" & wait', sys.executable, burn)
    assert result.end.code == 0, result.stderr
    assert result.end.user_us + result.end.system_us >= 290_000
    assert result.end.memory_peak_bytes >= 64 * MIB


async def test_stdin_with_flow_control(start_agent: StartAgent) -> None:
    data = os.urandom(1 * MIB) * 5
    async with start_agent() as agent:
        output = Result()
        request = Exec(
            argv=("sh", "-c", "sleep 0.1; cat"), env=("PATH=/usr/bin:/bin",), stdin=True, stream_bytes=8 * MIB
        )
        execution = await agent.connection.exec(request, output.take)
        for start in range(0, len(data), 300_000):
            await execution.write(data[start : start + 300_000])
        await execution.close_stdin()
        end = await execution.wait()
    assert (end.code, end.stdout_bytes) == (0, len(data))
    assert output.stdout == data


async def test_stdin_that_nobody_reads_any_more_holds_nobody_up(start_agent: StartAgent) -> None:
    async with start_agent() as agent:
        request = Exec(
            argv=("sh", "-c", "head -c 10; exec 0<&-; sleep 0.5"),
            env=("PATH=/usr/bin:/bin",),
            stdin=True,
            stream_bytes=100,
        )
        execution = await agent.connection.exec(request, lambda stream, data: None)
        with anyio.fail_after(20):
            await execution.write(bytes(2 * MIB))
            assert (await execution.wait()).code == 0
            await execution.write(b"late")
            await execution.close_stdin()


async def test_a_writer_waits_while_the_command_does_not_read(start_agent: StartAgent) -> None:
    async with start_agent() as agent:
        request = Exec(argv=("sleep", "1000"), env=("PATH=/usr/bin:/bin",), stdin=True, stream_bytes=100)
        execution = await agent.connection.exec(request, lambda stream, data: None)
        with anyio.move_on_after(0.5) as scope:
            await execution.write(bytes(2 * MIB))
        assert scope.cancelled_caught
        await execution.signal(signal.SIGKILL)
        assert (await execution.wait()).code == signal.SIGKILL


async def test_a_flood_leaves_the_agent_small(start_agent: StartAgent, program: AgentProgram, soak: bool) -> None:
    if program.kind != "native":
        pytest.skip("the memory of the agent as it is shipped is what counts")
    size = 1024 * MIB if soak else 128 * MIB
    received = 0

    def sink(stream: Stream, data: bytes) -> None:
        nonlocal received
        received += len(data)

    async with start_agent() as agent:
        request = Exec(argv=("head", "-c", str(size), "/dev/zero"), env=("PATH=/usr/bin:/bin",), stream_bytes=size)
        end = await (await agent.connection.exec(request, sink)).wait()
        status = Path(f"/proc/{agent.child.pid}/status").read_text()
    assert (end.code, received) == (0, size)
    peak_kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    assert peak_kib < 8 * 1024, "the agent grew with the output"


async def test_a_slow_host_slows_the_command_and_not_the_agents_memory(
    start_agent: StartAgent, program: AgentProgram
) -> None:
    if program.kind != "native":
        pytest.skip("the memory of the agent as it is shipped is what counts")
    async with start_agent() as agent:
        request = Exec(argv=("cat", "/dev/zero"), env=("PATH=/usr/bin:/bin",), stream_bytes=1 << 40)
        executing = await agent.connection.exec(request, lambda stream, data: __import__("time").sleep(0.002))
        await anyio.sleep(0.7)
        status = Path(f"/proc/{agent.child.pid}/status").read_text()
        await executing.signal(signal.SIGKILL)
        with anyio.fail_after(20):
            await executing.wait()
    assert next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) < 8 * 1024
