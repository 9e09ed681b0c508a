"""A job: what to run, where, how often, and the plan of steps it is carried out in."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from metalmark.model.process import ProcessOverrides
from metalmark.model.resources import OutputLimits, Resources


class SandboxName(StrEnum):
    """The sandboxes, strongest isolation first."""

    FIRECRACKER = "firecracker"
    QEMU = "qemu"
    CONTAINER = "container"
    NONE = "none"


class RootfsMode(StrEnum):
    """What the box's root file system is made of."""

    OVERLAY = "overlay"
    """A read-only squashfs base with an ext4 scratch over it."""
    EXT4 = "ext4"
    """One writable ext4 image, cloned before the clock starts."""


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """What the user asked for. Amounts carry their unit in the name."""

    image: str
    overrides: ProcessOverrides = field(default_factory=ProcessOverrides)
    sandbox: SandboxName | None = None
    """None lets the machine choose (see `metalmark.sandbox.choice`)."""
    resources: Resources = field(default_factory=Resources)
    cpus: tuple[int, ...] = ()
    """CPUs to bind to; empty lets placement choose."""
    network: bool = False
    rootfs: RootfsMode = RootfsMode.OVERLAY
    platform: str = ""
    """``os/arch[/variant]``; empty is the machine's own."""
    iterations: int = 1
    timeout_s: float = 300.0
    """Limit of one iteration, from its exec."""
    grace_s: float = 1.0
    """Time between the polite and the forced end of a process."""
    allow_failure: bool = False
    outputs: tuple[str, ...] = ()
    """Paths or globs in the box to collect after each iteration; relative ones start at the working directory."""
    output_limits: OutputLimits = field(default_factory=OutputLimits)
    live: bool = True
    """Whether output is forwarded while the benchmark runs, or held in the guest until its end."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a plan: one iteration of one variant."""

    variant: str
    iteration: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The ordered steps of a job, and the seed that the order was drawn with."""

    steps: tuple[Step, ...]
    seed: int


def plan(spec: JobSpec, *, seed: int) -> Plan:
    """Return the steps of a job. With its one variant the order is the iterations' own, whatever the seed."""
    return Plan(steps=tuple(Step(variant="a", iteration=n) for n in range(1, spec.iterations + 1)), seed=seed)
