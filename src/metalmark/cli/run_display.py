"""What a person sees of a run on standard error: which sandbox, progress on a terminal, and the closing table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from metalmark.model import Phase, Progress
from metalmark.runner import ChosenSandbox, RunObserver

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

_LOG_BYTES = 4 * 1024 * 1024
"""How much of the end of a console log is shown: the guest may write as much as it likes."""


class RunDisplay(RunObserver):
    """Writes to standard error; progress only where that is a terminal."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}

    def say(self, text: str) -> None:
        """Show a line, unless quiet."""
        if not self._quiet:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def chosen(self, sandbox: ChosenSandbox) -> None:
        """Say which sandbox, and why."""
        self.say(f"sandbox: {sandbox.name.value}: {sandbox.reason}")

    def warned(self, text: str) -> None:
        """Say it."""
        self.say(f"warning: {text}")

    def debug_log(self, path: Path) -> None:
        """Show the console log: this is what was asked for with --debug-boot."""
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - _LOG_BYTES))
            text = log.read(_LOG_BYTES).decode("utf-8", "replace")
        for line in text.splitlines():
            self.say("console: " + "".join(char if char.isprintable() else " " for char in line))

    def phase_started(self, phase: Phase, iteration: int) -> None:
        """Take progress off the terminal before the benchmark writes to it."""
        del iteration
        if phase not in (Phase.PULL, Phase.ROOTFS):
            self.close()

    def progress(self, event: Progress) -> None:
        """Move a bar."""
        if self._quiet or not sys.stderr.isatty():
            return
        if self._bars is None:
            self._bars = _bars()
            self._bars.start()
        task = self._tasks.get(event.task)
        if task is None:
            task = self._tasks[event.task] = self._bars.add_task(event.task, total=event.total)
        total = event.total if event.total is not None else (max(event.done, 1) if event.finished else None)
        self._bars.update(task, completed=total if event.finished and total else event.done, total=total)

    def close(self) -> None:
        """Take the progress display away."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
            self._tasks.clear()


def _bars() -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    return Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        console=Console(stderr=True),
        transient=True,
    )
