"""Describes this machine and decides which CPUs a job gets."""

from __future__ import annotations

from metalmark.host.cpu_list import MAX_CPU, format_cpu_list, parse_cpu_list
from metalmark.host.memory import MemoryFacts, read_memory
from metalmark.host.placement import CpuSplit, Placement, fits, place, split
from metalmark.host.topology import LogicalCpu, Topology, read_topology

__all__ = [
    "MAX_CPU",
    "CpuSplit",
    "LogicalCpu",
    "MemoryFacts",
    "Placement",
    "Topology",
    "fits",
    "format_cpu_list",
    "parse_cpu_list",
    "place",
    "read_memory",
    "read_topology",
    "split",
]
