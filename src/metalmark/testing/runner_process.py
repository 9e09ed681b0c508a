# ruff: noqa: TID251 - a test without an event loop starts, stops, kills and awaits the runner from outside
"""``metalmark runner up`` in a process of its own, to be stopped, suspended and killed by tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from metalmark.testing.leftover_listing import Listing, list_leftovers

_STOP_S = 60


@dataclass(kw_only=True)
class RunnerProcess:
    """One runner. It may be started again after its end, with the same home."""

    home: Path
    """Its METALMARK_HOME; the log and the key are beside it."""
    url: str
    """The server's, as the runner sees it."""
    runner: str
    """UUID or slug."""
    key: str
    options: Sequence[str] = ()
    """More words of the command line."""
    prefix: Sequence[str] = ()
    """Words before the command: ``ip netns exec NAME`` for instance."""
    environment: Mapping[str, str] = field(default_factory=dict)

    errors: int | None = None
    """Descriptor that gets standard error; without one the log does."""
    boxes: set[str] = field(default_factory=set)
    """Names of boxes that `note_boxes` has seen."""

    _process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def log_file(self) -> Path:
        """All that it has printed, over all its starts."""
        return self.home.with_name(f"{self.home.name}.log")

    def log(self) -> str:
        """Return all that it has printed."""
        return self.log_file.read_text(encoding="utf-8", errors="replace") if self.log_file.exists() else ""

    def note_boxes(self) -> None:
        """Note the boxes that there are now: by their names their control groups are told from those of others."""
        self.boxes |= {path.name for path in self.home.glob("run/boxes/*")}

    def leftovers(self) -> Listing:
        """List what there is of the runner and the boxes that were noted."""
        # Without a name the prefixes would be those of everybody's.
        found = list_leftovers(self.home, box_prefixes=tuple(self.boxes) or ("no box was seen",))
        # An agent in a container names no folder: whose it is, its control group says, which is in the listing.
        own = frozenset(line for line in found.processes if str(self.home) in line)
        return replace(found, processes=own)

    def start(self) -> None:
        """Start the process, without waiting for anything."""
        assert not self.alive
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        key_file = self.home.with_name(f"{self.home.name}.key")
        key_file.write_text(self.key, encoding="ascii")
        key_file.chmod(0o600)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("METALMARK_", "BENCHER_"))}
        program = str(Path(sys.executable).with_name("metalmark"))
        command = [*self.prefix, program, "runner", "up", "--host", self.url, "--runner", self.runner]
        command += ["--key-file", str(key_file), *self.options]
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log if self.errors is None else self.errors,
                env={**kept, "METALMARK_HOME": str(self.home), **self.environment},
                start_new_session=True,
            )

    def kill(self) -> None:
        """End the process by SIGKILL; what it started is not touched."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(timeout=_STOP_S)

    def suspend(self) -> None:
        """Stop the process by SIGSTOP."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a stopped process go on."""
        os.kill(self.pid, signal.SIGCONT)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def wait(self, *, seconds: float = _STOP_S) -> int:
        """Wait for its end and return the exit code.

        Raises:
            subprocess.TimeoutExpired: It goes on.
        """
        assert self._process is not None
        return self._process.wait(timeout=seconds)

    def stop(self, *, seconds: float = _STOP_S) -> int:
        """End the process by SIGTERM and return its exit code; SIGKILL when it takes too long."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)
            os.kill(self.pid, signal.SIGTERM)
        try:
            return self.wait(seconds=seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def end(self) -> None:
        """End the process, if it runs, without waiting for its jobs: SIGTERM twice."""
        if not self.alive:
            return
        with suppress(ProcessLookupError):
            self.resume()
            self.signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.wait(seconds=1)
        if self.alive:
            self.stop()
