"""Runs commands isolated and pinned behind one interface."""

from __future__ import annotations

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

__all__ = [
    "Accelerator",
    "Availability",
    "Box",
    "BoxFacts",
    "BoxSpec",
    "DataSink",
    "Driver",
    "Execution",
    "OutputSink",
    "Stream",
]
