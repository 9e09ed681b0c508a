"""Tells somebody how a run is getting on."""

from __future__ import annotations

from pathlib import Path

from metalmark.model import IterationResult, Phase, Progress
from metalmark.runner.context import ChosenSandbox


class RunObserver:
    """Sees the events of a run in their order, on the event loop; this one ignores them. Subclass what matters."""

    def chosen(self, sandbox: ChosenSandbox) -> None:
        """A sandbox was chosen."""

    def warned(self, text: str) -> None:
        """Something is not as it should be and does not stop the run."""

    def phase_started(self, phase: Phase, iteration: int) -> None:
        """A phase begins; the iteration is 0 for those that happen once a run."""

    def progress(self, event: Progress) -> None:
        """Work on image or root file system moves on. Also called from worker threads."""

    def debug_log(self, path: Path) -> None:
        """The console log of a box was kept (``--debug-boot``)."""

    def iteration_ended(self, result: IterationResult) -> None:
        """An iteration is over."""
