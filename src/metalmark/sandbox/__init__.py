"""Runs commands isolated and pinned behind one interface."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

# Not lazily: a module and a function of one name, and whoever comes last gets the package's attribute.
from metalmark.sandbox.agent_binary import agent_binary, selftest_program
from metalmark.sandbox.port import (
    Accelerator,
    Availability,
    Box,
    BoxFacts,
    BoxSpec,
    DataSink,
    Driver,
    Execution,
    OutputSink,
    Stream,
)
from metalmark.sandbox.settings import DriverSettings

if TYPE_CHECKING:
    from metalmark.sandbox.agent import AgentConnection
    from metalmark.sandbox.artifacts import PinnedFirecracker
    from metalmark.sandbox.choice import Choice, choose, make_driver
    from metalmark.sandbox.kernel import GuestKernel, installed_kernels, kernels_folder, unpack_kernel_package
    from metalmark.sandbox.kvm import KvmProbe, KvmState, probe_kvm
    from metalmark.sandbox.leftovers import BoxRecord, SweepReport, sweep

__all__ = [
    "Accelerator",
    "AgentConnection",
    "Availability",
    "Box",
    "BoxFacts",
    "BoxRecord",
    "BoxSpec",
    "Choice",
    "DataSink",
    "Driver",
    "DriverSettings",
    "Execution",
    "GuestKernel",
    "KvmProbe",
    "KvmState",
    "OutputSink",
    "PinnedFirecracker",
    "Stream",
    "SweepReport",
    "agent_binary",
    "choose",
    "installed_kernels",
    "kernels_folder",
    "make_driver",
    "probe_kvm",
    "selftest_program",
    "sweep",
    "unpack_kernel_package",
]

_LAZY = {
    "AgentConnection": "agent",
    "BoxRecord": "leftovers",
    "Choice": "choice",
    "GuestKernel": "kernel",
    "KvmProbe": "kvm",
    "KvmState": "kvm",
    "PinnedFirecracker": "artifacts",
    "SweepReport": "leftovers",
    "choose": "choice",
    "installed_kernels": "kernel",
    "kernels_folder": "kernel",
    "make_driver": "choice",
    "probe_kvm": "kvm",
    "sweep": "leftovers",
    "unpack_kernel_package": "kernel",
}
"""Public name to the module that has it, for those that most commands do not need."""


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(importlib.import_module(f"metalmark.sandbox.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
