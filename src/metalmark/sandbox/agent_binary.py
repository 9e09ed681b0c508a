"""Where the guest agent's binary is."""

from __future__ import annotations

from pathlib import Path

from metalmark.model import ToolMissing

MACHINES = ("x86_64", "aarch64")
"""The architectures that the guest agent is built for, as ``uname -m`` has them."""
_FOLDER = Path(__file__).parent / "agent"


def agent_binary(machine: str, *, folder: Path = _FOLDER) -> Path:
    """Return the static guest agent for a machine.

    Args:
        machine: Architecture as ``uname -m`` has it.
        folder: Where the binaries are; the installed package's by default.

    Raises:
        ToolMissing: There is none for that architecture, or this installation was built without.
    """
    return _packaged("agent", "guest agent", machine, folder)


def selftest_program(machine: str, *, folder: Path = _FOLDER) -> Path:
    """Return the static program that self-test images consist of; see `agent_binary`.

    Raises:
        ToolMissing: There is none for that architecture, or this installation was built without.
    """
    return _packaged("selftest", "self-test program", machine, folder)


def _packaged(kind: str, noun: str, machine: str, folder: Path) -> Path:
    if machine not in MACHINES:
        raise ToolMissing(f"there is no {noun} for {machine}", why=f"it is built for {' and '.join(MACHINES)}", hint="")
    path = folder / f"metalmark-{kind}-{machine}"
    if not path.is_file():
        raise ToolMissing(
            f"the {noun} for {machine} is missing",
            why=f"this installation was built without it: {path}",
            hint="in a source tree: apt-get install musl-tools && make -C guest, or pip install ziglang"
            f" && make -C guest MACHINE={machine} CC='python3 -m ziglang cc -target {machine}-linux-musl'",
        )
    return path
