"""Takes jobs, prepares, executes, reports, recovers; and examines, sets up and tests the host for that."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metalmark.runner.context import ChosenSandbox, ExecutionContext, Images, RunImage, RunRootfs, Sandboxes
    from metalmark.runner.daemon import DaemonObserver, DaemonSettings, run_daemon
    from metalmark.runner.doctor import diagnose
    from metalmark.runner.end_file import EndKind, EndOfJob, SpooledEnd
    from metalmark.runner.executor import RunRecord, execute
    from metalmark.runner.fault_of import as_metalmark_error
    from metalmark.runner.finding import TROUBLESHOOTING, Diagnosis, Finding, Status
    from metalmark.runner.installation import Installation, InstalledVersion
    from metalmark.runner.iteration import IterationRecord
    from metalmark.runner.job_in_hand import JobInHand
    from metalmark.runner.jobs_in_hand import JobsInHand
    from metalmark.runner.launcher import DEFAULT_ROOT
    from metalmark.runner.link import Link
    from metalmark.runner.link_observer import LinkObserver
    from metalmark.runner.live_output import LiveOutput
    from metalmark.runner.managed_update import MAX_DOWNLOAD_BYTES, ManagedUpdates, find_updates
    from metalmark.runner.observer import RunObserver
    from metalmark.runner.output_files import CollectedFile, CollectedFiles
    from metalmark.runner.phase_clock import Deadlines
    from metalmark.runner.proved_capabilities import ProvedMachine
    from metalmark.runner.real_host import examine_host, host_firecracker
    from metalmark.runner.real_surroundings import CachedImages, MachineSandboxes
    from metalmark.runner.result_json import embedded, write_result
    from metalmark.runner.result_spool import ResultSpool
    from metalmark.runner.run_spool import spool_folder
    from metalmark.runner.runner_identity import RunnerIdentity
    from metalmark.runner.saved_run import check_target, save_run
    from metalmark.runner.self_update import Hands, NoUpdates, Restart, UpdateOffer, Updates
    from metalmark.runner.selftest import (
        SCENARIOS,
        Mark,
        ScenarioResult,
        SelftestReport,
        SelftestRequest,
        run_selftest,
        select,
    )
    from metalmark.runner.service import ServiceRequest, Systemctl, install_service, uninstall_service
    from metalmark.runner.service_unit import EXIT_REFUSED, ServiceUnit
    from metalmark.runner.session_pace import SessionPace
    from metalmark.runner.setup import collect, prepare_setup
    from metalmark.runner.setup_plan import SetupPlan
    from metalmark.runner.stop_request import StopRequest, Urgency

__all__ = [
    "DEFAULT_ROOT",
    "EXIT_REFUSED",
    "MAX_DOWNLOAD_BYTES",
    "SCENARIOS",
    "TROUBLESHOOTING",
    "CachedImages",
    "ChosenSandbox",
    "CollectedFile",
    "CollectedFiles",
    "DaemonObserver",
    "DaemonSettings",
    "Deadlines",
    "Diagnosis",
    "EndKind",
    "EndOfJob",
    "ExecutionContext",
    "Finding",
    "Hands",
    "Images",
    "Installation",
    "InstalledVersion",
    "IterationRecord",
    "JobInHand",
    "JobsInHand",
    "Link",
    "LinkObserver",
    "LiveOutput",
    "MachineSandboxes",
    "ManagedUpdates",
    "Mark",
    "NoUpdates",
    "ProvedMachine",
    "Restart",
    "ResultSpool",
    "RunImage",
    "RunObserver",
    "RunRecord",
    "RunRootfs",
    "RunnerIdentity",
    "Sandboxes",
    "ScenarioResult",
    "SelftestReport",
    "SelftestRequest",
    "ServiceRequest",
    "ServiceUnit",
    "SessionPace",
    "SetupPlan",
    "SpooledEnd",
    "Status",
    "StopRequest",
    "Systemctl",
    "UpdateOffer",
    "Updates",
    "Urgency",
    "as_metalmark_error",
    "check_target",
    "collect",
    "diagnose",
    "embedded",
    "examine_host",
    "execute",
    "find_updates",
    "host_firecracker",
    "install_service",
    "prepare_setup",
    "run_daemon",
    "run_selftest",
    "save_run",
    "select",
    "spool_folder",
    "uninstall_service",
    "write_result",
]

_MODULES = {
    "DEFAULT_ROOT": "launcher",
    "EXIT_REFUSED": "service_unit",
    "MAX_DOWNLOAD_BYTES": "managed_update",
    "SCENARIOS": "selftest",
    "TROUBLESHOOTING": "finding",
    "CachedImages": "real_surroundings",
    "ChosenSandbox": "context",
    "CollectedFile": "output_files",
    "CollectedFiles": "output_files",
    "DaemonObserver": "daemon",
    "DaemonSettings": "daemon",
    "Deadlines": "phase_clock",
    "Diagnosis": "finding",
    "EndKind": "end_file",
    "EndOfJob": "end_file",
    "ExecutionContext": "context",
    "Finding": "finding",
    "Hands": "self_update",
    "Images": "context",
    "Installation": "installation",
    "InstalledVersion": "installation",
    "IterationRecord": "iteration",
    "JobInHand": "job_in_hand",
    "JobsInHand": "jobs_in_hand",
    "Link": "link",
    "LinkObserver": "link_observer",
    "LiveOutput": "live_output",
    "MachineSandboxes": "real_surroundings",
    "ManagedUpdates": "managed_update",
    "Mark": "selftest",
    "NoUpdates": "self_update",
    "ProvedMachine": "proved_capabilities",
    "Restart": "self_update",
    "ResultSpool": "result_spool",
    "RunImage": "context",
    "RunObserver": "observer",
    "RunRecord": "executor",
    "RunRootfs": "context",
    "RunnerIdentity": "runner_identity",
    "Sandboxes": "context",
    "ScenarioResult": "selftest",
    "SelftestReport": "selftest",
    "SelftestRequest": "selftest",
    "ServiceRequest": "service",
    "ServiceUnit": "service_unit",
    "SessionPace": "session_pace",
    "SetupPlan": "setup_plan",
    "SpooledEnd": "end_file",
    "Status": "finding",
    "StopRequest": "stop_request",
    "Systemctl": "service",
    "UpdateOffer": "self_update",
    "Updates": "self_update",
    "Urgency": "stop_request",
    "as_metalmark_error": "fault_of",
    "check_target": "saved_run",
    "collect": "setup",
    "diagnose": "doctor",
    "embedded": "result_json",
    "examine_host": "real_host",
    "execute": "executor",
    "find_updates": "managed_update",
    "host_firecracker": "real_host",
    "install_service": "service",
    "prepare_setup": "setup",
    "run_daemon": "daemon",
    "run_selftest": "selftest",
    "save_run": "saved_run",
    "select": "selftest",
    "spool_folder": "run_spool",
    "uninstall_service": "service",
    "write_result": "result_json",
}


def __getattr__(name: str) -> object:
    # A command that examines the host needs none of what executes a job, and the other way round.
    if name in _MODULES:
        return getattr(importlib.import_module(f"metalmark.runner.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
