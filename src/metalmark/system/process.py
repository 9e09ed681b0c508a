"""Starting processes: a short one to its end (`run`), or a long one that is watched (`spawn`).

Identity is a pidfd, taken before anything could have reaped the child. A child dies with this process
(PR_SET_PDEATHSIG, set through ``setpriv``), can be born in cgroups, and never inherits descriptors that were not named.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import anyio

from metalmark.model import InputError, NoPermission, PhaseTimeout, ToolMissing

_READ_BYTES = 64 * 1024
_PIPE_GRACE_S = 1.0
"""How long `run` still reads after the child's end, when a descendant holds its pipes open."""
_JOIN_CGROUPS = 'n=$1; shift; while [ "$n" -gt 0 ]; do echo 0 >"$1" || exit 125; shift; n=$((n-1)); done; exec "$@"'
_STILL_HAS_PARENT = '[ "$PPID" = "$1" ] || [ "$PPID" = 0 ] || kill -KILL $$; shift; exec "$@"'
"""A parent that died before PR_SET_PDEATHSIG was set sends no signal. In a PID namespace of its own the parent is 0."""


@dataclass(frozen=True, kw_only=True)
class Completed:
    """A process that has ended."""

    argv: tuple[str, ...]
    returncode: int
    """Negative: the signal that ended it."""
    stdout: bytes
    stderr: bytes

    @property
    def error_text(self) -> str:
        """The last lines of stderr, for a message."""
        return self.stderr[-2000:].decode("utf-8", "replace").strip()


def find_tool(name: str, *, hint: str = "", path: str | None = None) -> str:
    """Return the absolute path of a system tool, looked for on PATH and in the sbin folders.

    Raises:
        ToolMissing: It is not installed.
    """
    named = (path if path is not None else os.environ.get("PATH", "")).split(":")
    # An empty or relative entry means the current folder, which may hold a stranger's programs.
    search = (*(folder for folder in named if folder.startswith("/")), "/usr/local/sbin", "/usr/sbin", "/sbin")
    found = shutil.which(name, path=":".join(search))
    if found is None:
        raise ToolMissing(f"{name} is not installed", hint=hint or "run `metalmark host setup`")
    return found


def max_open_files() -> int:
    """The hard limit of open files, which children cannot exceed."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


class Child:
    """A running child process, held by its pidfd."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen
        try:
            self.pidfd = os.pidfd_open(popen.pid)
        except OSError:
            # No descriptor left for it: nobody could end the child later.
            popen.kill()
            popen.wait()
            raise

    @property
    def pid(self) -> int:
        """Its process id: for reading ``/proc``, never for signalling."""
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """Exit code, negative signal number, or None while it runs."""
        return self._popen.poll()

    async def wait(self) -> int:
        """Wait for its end and return the exit code (negative: signal). Any number of tasks may wait at once."""
        if self._popen.poll() is None:
            # A descriptor of its own: the event loop takes one waiter a descriptor, and `close` may come meanwhile.
            descriptor = os.dup(self.pidfd)
            try:
                await anyio.wait_readable(descriptor)
            finally:
                os.close(descriptor)
        return self._popen.wait()

    def signal(self, number: int) -> None:
        """Send a signal; nothing happens when it has ended."""
        if self._popen.poll() is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def close(self, *, whole_group: bool = False) -> None:
        """Kill it if it runs, reap it, and give back the pidfd. Closing twice is harmless.

        Args:
            whole_group: Kill also what it started and what stayed in its process group (it led a new session).
        """
        if self._popen.poll() is None:
            if whole_group:
                # The child is not reaped yet, so its number still names its own group.
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._popen.pid, signal.SIGKILL)
            self.signal(signal.SIGKILL)
        self._popen.wait()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: int | IO[bytes] | None = None,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    pass_fds: Sequence[int] = (),
    cgroup_procs: Sequence[Path] = (),
    die_with_parent: bool = True,
    new_session: bool = True,
) -> Child:
    """Start a process that outlives this call. Streams that are not given are /dev/null.

    Args:
        argv: Program and arguments; the program is looked for on PATH.
        env: The whole environment; None inherits ours.
        cwd: Working folder.
        stdin: Descriptor or file.
        stdout: Descriptor or file.
        stderr: Descriptor or file.
        pass_fds: Descriptors that it inherits under the same numbers.
        cgroup_procs: ``cgroup.procs`` files that it writes itself into before the program starts.
        die_with_parent: It gets SIGKILL when this process dies. Call from the main thread then.
        new_session: It leads its own session, out of reach of the terminal's signals.

    Raises:
        ToolMissing: There is no such program.
        NoPermission: The program may not be executed.
        InputError: ``cwd`` is not a folder.
    """
    program = _program(argv[0], cwd)
    full = [program, *argv[1:]]
    if cgroup_procs:
        full = ["/bin/sh", "-c", _JOIN_CGROUPS, "sh", str(len(cgroup_procs)), *map(str, cgroup_procs), *full]
    if die_with_parent:
        full = ["/bin/sh", "-c", _STILL_HAS_PARENT, "sh", str(os.getpid()), *full]
        full = [find_tool("setpriv"), "--pdeathsig", "KILL", "--", *full]
    popen = subprocess.Popen(
        full,
        env=None if env is None else dict(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL if stdin is None else stdin,
        stdout=subprocess.DEVNULL if stdout is None else stdout,
        stderr=subprocess.DEVNULL if stderr is None else stderr,
        pass_fds=tuple(pass_fds),
        start_new_session=new_session,
    )
    return Child(popen)


def _program(name: str, cwd: Path | None) -> str:
    # Told here, because setpriv and sh would turn it into an exit code that a program could give as well.
    if cwd is not None and not cwd.is_dir():
        raise InputError("working folder", str(cwd), f"{name} cannot start there: it is not a folder")
    if "/" not in name:
        return find_tool(name)
    path = name if cwd is None else str(cwd / name)
    if not Path(path).exists():
        raise ToolMissing(f"{name} is not installed", hint="run `metalmark host setup`")
    if not os.access(path, os.X_OK):
        raise NoPermission(f"{name} may not be executed", hint="run `metalmark host doctor`")
    return name


async def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: int | IO[bytes] | None = None,
    stdout: int | IO[bytes] | None = None,
    pass_fds: Sequence[int] = (),
    max_output_bytes: int = 1024 * 1024,
) -> Completed:
    """Run a process to its end and return what it printed; output beyond the bound is read and dropped.

    It ends when the process ends: a descendant that keeps the pipes open delays it by a second at most. When it is
    out of time or cancelled, the process and what it started in its process group are killed.

    Raises:
        ToolMissing: There is no such program.
        PhaseTimeout: It did not end in time; it is killed.
    """
    captured_out, captured_err = bytearray(), bytearray()
    with ExitStack() as opened:
        out_read, out_write = _pipe(opened)
        err_read, err_write = _pipe(opened)
        with ExitStack() as ours:
            for descriptor in (out_write, err_write):
                ours.callback(os.close, descriptor)
            child = spawn(
                argv, env=env, cwd=cwd, stdin=stdin, stdout=out_write if stdout is None else stdout, stderr=err_write,
                pass_fds=pass_fds,
            )  # fmt: skip
        opened.callback(child.close, whole_group=True)
        try:
            with anyio.fail_after(timeout_s):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(_drain, out_read, captured_out, max_output_bytes)
                    tasks.start_soon(_drain, err_read, captured_err, max_output_bytes)
                    returncode = await child.wait()
                    tasks.cancel_scope.deadline = anyio.current_time() + _PIPE_GRACE_S
        except TimeoutError as error:
            raise PhaseTimeout(Path(argv[0]).name, timeout_s, hint=_last_words(captured_err)) from error
    return Completed(argv=tuple(argv), returncode=returncode, stdout=bytes(captured_out), stderr=bytes(captured_err))


def _pipe(opened: ExitStack) -> tuple[int, int]:
    read, write = os.pipe()
    opened.callback(os.close, read)
    return read, write


def _last_words(captured: bytearray) -> str:
    text = captured[-500:].decode("utf-8", "replace").strip()
    return f"its last words were: {text}" if text else ""


async def _drain(descriptor: int, captured: bytearray, limit: int) -> None:
    os.set_blocking(descriptor, False)
    while True:
        await anyio.wait_readable(descriptor)
        try:
            data = os.read(descriptor, _READ_BYTES)
        except BlockingIOError:
            continue
        if not data:
            return
        captured += data[: max(0, limit - len(captured))]
