"""The OCI runtime that makes containers: which one, and its command lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metalmark.model import ToolMissing
from metalmark.system import find_tool, run

DEFAULT_RUNTIMES = ("runc", "crun")
"""Tried in this order; further ones that have the same command line can be named."""
_VERSION_S = 5.0
MAX_DESCRIPTORS = 7
"""A POSIX shell renumbers descriptors 3 to 9 and no others."""


@dataclass(frozen=True, kw_only=True)
class OciRuntime:
    """An installed runtime."""

    path: str

    @property
    def name(self) -> str:
        """Name of its program."""
        return Path(self.path).name

    async def version(self) -> str:
        """First line of what ``--version`` prints.

        Raises:
            ToolMissing: It cannot be executed, or is no OCI runtime.
        """
        done = await run([self.path, "--version"], timeout_s=_VERSION_S)
        lines = done.stdout.decode("utf-8", "replace").splitlines()
        if done.returncode != 0 or not lines:
            raise ToolMissing(
                f"{self.path} --version failed", why=done.error_text or f"it ended with {done.returncode}"
            )
        return lines[0].strip()

    def run_argv(self, *, name: str, bundle: Path, state: Path, log: Path, descriptors: int) -> list[str]:
        """Return the command that makes a container and stays until it ends.

        Args:
            name: Name of the container.
            bundle: Folder with ``config.json``.
            state: Folder for the runtime's own records.
            log: File for its messages.
            descriptors: How many descriptors from 3 on the container's first process inherits.
        """
        return [
            self.path, "--root", str(state), "--log", str(log), "run",
            "--bundle", str(bundle), "--preserve-fds", str(descriptors), name,
        ]  # fmt: skip


def find_runtime(wanted: str | None) -> OciRuntime:
    """Find the runtime that was asked for, or the first of `DEFAULT_RUNTIMES`.

    Raises:
        ToolMissing: There is none.
    """
    if wanted:
        hint = "give --oci-runtime the path of an OCI runtime"
        if "/" in wanted and not Path(wanted).is_file():
            raise ToolMissing(f"{wanted} does not exist", hint=hint)
        return OciRuntime(path=wanted if "/" in wanted else find_tool(wanted, hint=hint))
    for name in DEFAULT_RUNTIMES:
        try:
            return OciRuntime(path=find_tool(name))
        except ToolMissing:
            continue
    raise ToolMissing(
        f"none of {', '.join(DEFAULT_RUNTIMES)} is installed",
        why="the container sandbox needs an OCI runtime",
        hint="apt-get install runc",
    )


def renumbered(files: Sequence[Path], argv: Sequence[str]) -> list[str]:
    """Return a command that gets its stdin as descriptor 3 and the files, open for writing, from 4 on.

    Raises:
        ValueError: There are more than `MAX_DESCRIPTORS`.
    """
    if len(files) + 1 > MAX_DESCRIPTORS:
        raise ValueError(f"{len(files) + 1} descriptors, a shell renumbers {MAX_DESCRIPTORS}")
    opened = " ".join(f'{4 + index}>"${{{1 + index}}}"' for index in range(len(files)))
    return [
        "/bin/sh",
        "-c",
        f'exec 3<&0 {opened} </dev/null; shift {len(files)}; exec "$@"',
        "sh",
        *map(str, files),
        *argv,
    ]
