"""The result of a run: what ``runner run --json`` prints and ``--save`` keeps (schema version 1).

``docs/reference/run-result.schema.json`` is generated from these classes.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from metalmark.model.outcome import Fault, Outcome
from metalmark.model.phase import Phase
from metalmark.model.printable import encodable

SCHEMA_VERSION: Literal[1] = 1


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _encodable(cls, value: object) -> object:
        # Arguments and paths are bytes to the system; JSON has no way to write those that are no UTF-8.
        if isinstance(value, str):
            return encodable(value)
        if isinstance(value, tuple):
            return tuple(encodable(part) if isinstance(part, str) else part for part in value)
        if isinstance(value, dict):
            return {key: encodable(part) if isinstance(part, str) else part for key, part in value.items()}
        return value


class ImageResult(_Value):
    """Which image ran."""

    reference: str = Field(description="The image as the user named it.")
    digest: str = Field(description="Digest of the manifest that was run.")
    platform: str = Field(description="os/architecture[/variant] of that manifest.")


class HostResult(_Value):
    """What it ran on."""

    sandbox: str
    accelerator: str = Field(description="kvm, native, or tcg: emulated, and no measurement of this machine.")
    reason: str = Field(description="Why this sandbox was chosen.")
    rootfs: str = Field(description="overlay or ext4.")
    kernel: str = Field(description="Release of the kernel that the benchmark saw.")
    cpus: tuple[int, ...] = Field(description="CPUs that the benchmark was bound to; empty: unbound.")
    helper_cpus: tuple[int, ...] = Field(description="CPUs of the VMM's and runner's own threads.")
    details: dict[str, str] = Field(default_factory=dict, description="Versions and choices of the sandbox.")
    warnings: tuple[str, ...] = ()


class LimitsResult(_Value):
    """The limits that were in force."""

    vcpus: int
    memory_bytes: int
    disk_bytes: int
    pids: int
    timeout_s: float
    network: bool


class PhaseResult(_Value):
    """One timed phase."""

    phase: Phase
    duration_s: float = Field(description="Host monotonic clock.")


class StreamResult(_Value):
    """What one output stream gave."""

    text: str | None = Field(
        default=None,
        description="The kept bytes; those that are not UTF-8 are replaced. "
        "null where the result is kept beside `saved`.",
    )
    base64: str | None = Field(default=None, description="The kept bytes, exactly; only when they are not UTF-8.")
    saved: str | None = Field(default=None, description="File below the --save folder that holds the kept bytes.")
    kept_bytes: int
    written_bytes: int = Field(description="What the benchmark wrote, also what was dropped.")
    truncated: bool


class FileResult(_Value):
    """One collected output file."""

    path: str = Field(description="Absolute path in the box; bytes that are not UTF-8 are escaped.")
    size_bytes: int
    sha256: str
    text: str | None = Field(default=None, description="Content when it is UTF-8.")
    base64: str | None = Field(default=None, description="Content when it is not.")
    saved: str | None = Field(default=None, description="File below the --save folder that holds it.")


class FilesResult(_Value):
    """The collected output files."""

    files: tuple[FileResult, ...] = ()
    missing: tuple[str, ...] = Field(default=(), description="Requested paths and globs that matched no file.")
    truncated: bool = Field(default=False, description="A bound on size or count was met and files were left out.")


class ErrorResult(_Value):
    """Why an iteration ended in `infrastructure`, or could not start its command."""

    fault: Fault | None = None
    type: str
    message: str
    hint: str = ""


class IterationResult(_Value):
    """One iteration."""

    iteration: int = Field(description="Counts from 1.")
    variant: str = "a"
    outcome: Outcome
    exit_code: int = Field(description="The benchmark's own, or the one that stands for the outcome.")
    signal: int | None = None
    wall_s: float | None = Field(default=None, description="From start to end of the command on the guest's clock.")
    user_s: float | None = Field(default=None, description="User CPU time of the command and all its descendants.")
    system_s: float | None = None
    memory_peak_bytes: int | None = Field(default=None, description="Highest memory use of the command's cgroup.")
    stdout: StreamResult
    stderr: StreamResult
    output: FilesResult = FilesResult()
    phases: tuple[PhaseResult, ...] = ()
    error: ErrorResult | None = None


class RunResult(_Value):
    """A whole run."""

    schema_version: Literal[1] = SCHEMA_VERSION
    metalmark_version: str
    started_at: str = Field(description="RFC 3339, UTC.")
    image: ImageResult | None = Field(description="null when the image could not be resolved.")
    command: tuple[str, ...] = Field(description="The arguments that were executed.")
    host: HostResult | None
    limits: LimitsResult
    seed: int
    verdict: Literal["measured", "emulated"] = Field(description="emulated: never compare it with other machines.")
    phases: tuple[PhaseResult, ...] = Field(default=(), description="pull and rootfs, which happen once.")
    iterations: tuple[IterationResult, ...]
    exit_code: int = Field(description="What `metalmark runner run` exits with.")
    error: ErrorResult | None = Field(default=None, description="What kept the run from starting.")
