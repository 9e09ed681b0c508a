"""The real guest agent on this machine: as it is shipped, with sanitizers, and for aarch64 under emulation."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from metalmark.testing.running_agent import AgentProgram, RunningAgent, StartAgent, running_agent
from metalmark.wire import Setup

GUEST = Path(__file__).parents[3] / "guest"
SANITIZERS = {"ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1", "UBSAN_OPTIONS": "print_stacktrace=1"}


def _make(folder: Path, *arguments: str) -> None:
    done = subprocess.run(
        ["make", "-C", GUEST, f"BUILD={folder}/build", f"OUT={folder}", *arguments],
        check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def _static(compiler: str) -> bool:
    if shutil.which(compiler) is None:
        return False
    argv = [compiler, "-static", "-o", "/dev/null", "-x", "c", "-"]
    source = b'#include <stdio.h>\nint main(void) { return puts(""); }\n'
    return subprocess.run(argv, input=source, check=False, stderr=subprocess.DEVNULL).returncode == 0


@pytest.fixture(scope="session")
def native_agent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent as it is shipped, built from the sources as they are."""
    if not _static("musl-gcc"):
        pytest.skip("musl-gcc is not installed (apt-get install musl-tools)")
    folder = tmp_path_factory.mktemp("agent-native")
    _make(folder, "CC=musl-gcc", f"{folder}/metalmark-agent-{platform.machine()}")
    return folder / f"metalmark-agent-{platform.machine()}"


@pytest.fixture(scope="session")
def sanitized_agent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent with AddressSanitizer and UBSan."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed (apt-get install gcc)")
    folder = tmp_path_factory.mktemp("agent-sanitized")
    _make(folder, "sanitize", f"SANITIZED={folder}/metalmark-agent")
    return folder / "metalmark-agent"


@pytest.fixture(scope="session")
def aarch64_agent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent for aarch64."""
    if not _static("aarch64-linux-gnu-gcc"):
        pytest.skip("no C compiler for aarch64 (apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross)")
    folder = tmp_path_factory.mktemp("agent-aarch64")
    _make(folder, "MACHINE=aarch64", "CC=aarch64-linux-gnu-gcc", f"{folder}/metalmark-agent-aarch64")
    return folder / "metalmark-agent-aarch64"


@pytest.fixture(scope="session", params=["native", "sanitized", "aarch64"])
def program(request: pytest.FixtureRequest) -> AgentProgram:
    """Each build of the agent."""
    kind = request.param
    argv: list[str] = []
    if kind == "aarch64" and platform.machine() != "aarch64":
        emulator = shutil.which("qemu-aarch64-static")
        if emulator is None:
            pytest.skip("qemu-aarch64-static is not installed (apt-get install qemu-user-static)")
        argv.append(emulator)
    return AgentProgram(argv=(*argv, str(request.getfixturevalue(f"{kind}_agent"))), kind=kind)


@pytest.fixture
def start_agent(program: AgentProgram) -> StartAgent:
    """Start the agent with this machine's root as the box."""

    @asynccontextmanager
    async def start() -> AsyncIterator[RunningAgent]:
        async with running_agent(program.argv, env={**os.environ, **SANITIZERS}) as agent:
            await agent.connection.setup(Setup())
            yield agent

    return start
