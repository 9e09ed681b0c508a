"""Takes jobs, prepares, executes, reports, recovers; and examines, sets up and tests the host for that."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metalmark.runner.context import ChosenSandbox, ExecutionContext, Images, RunImage, RunRootfs, Sandboxes
    from metalmark.runner.executor import RunRecord, execute
    from metalmark.runner.iteration import IterationRecord
    from metalmark.runner.live_output import LiveOutput
    from metalmark.runner.observer import RunObserver
    from metalmark.runner.output_files import CollectedFile, CollectedFiles
    from metalmark.runner.phase_clock import Deadlines
    from metalmark.runner.real_surroundings import CachedImages, MachineSandboxes
    from metalmark.runner.result_json import embedded, write_result
    from metalmark.runner.saved_run import check_target, save_run
    from metalmark.runner.spool_folder import spool_folder
    from metalmark.runner.stop_request import StopRequest, Urgency

__all__ = [
    "CachedImages",
    "ChosenSandbox",
    "CollectedFile",
    "CollectedFiles",
    "Deadlines",
    "ExecutionContext",
    "Images",
    "IterationRecord",
    "LiveOutput",
    "MachineSandboxes",
    "RunImage",
    "RunObserver",
    "RunRecord",
    "RunRootfs",
    "Sandboxes",
    "StopRequest",
    "Urgency",
    "check_target",
    "embedded",
    "execute",
    "save_run",
    "spool_folder",
    "write_result",
]

_MODULES = {
    "CachedImages": "real_surroundings",
    "ChosenSandbox": "context",
    "CollectedFile": "output_files",
    "CollectedFiles": "output_files",
    "Deadlines": "phase_clock",
    "ExecutionContext": "context",
    "Images": "context",
    "IterationRecord": "iteration",
    "LiveOutput": "live_output",
    "MachineSandboxes": "real_surroundings",
    "RunImage": "context",
    "RunObserver": "observer",
    "RunRecord": "executor",
    "RunRootfs": "context",
    "Sandboxes": "context",
    "StopRequest": "stop_request",
    "Urgency": "stop_request",
    "check_target": "saved_run",
    "embedded": "result_json",
    "execute": "executor",
    "save_run": "saved_run",
    "spool_folder": "spool_folder",
    "write_result": "result_json",
}


def __getattr__(name: str) -> object:
    # A command that examines the host needs none of what executes a job, and the other way round.
    if name in _MODULES:
        return getattr(importlib.import_module(f"metalmark.runner.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
