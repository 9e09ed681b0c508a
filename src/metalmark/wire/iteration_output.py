"""What one iteration of a job printed and left behind, and the document in which a job's output is kept."""

from __future__ import annotations

from pydantic import ConfigDict, SerializerFunctionWrapHandler, model_serializer

from metalmark.model import Outcome, Phase
from metalmark.wire.scalars import I32, Body, Text


class _Sparse(Body):
    """A body whose fields are left out when there is nothing to say, where others say null."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    @model_serializer(mode="wrap")
    def _leave_out_nothing(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        return {name: value for name, value in handler(self).items() if value is not None}


class IterationOutput(_Sparse):
    """One iteration: its exit code, what it printed, and the files it was asked for (path to text).

    Our own runners send what is not UTF-8 in the fields that end in ``_base64``, so that no byte is lost.
    """

    exit_code: I32
    stdout: Text | None = None
    stderr: Text | None = None
    output: dict[str, str] | None = None
    stdout_base64: Text | None = None
    stderr_base64: Text | None = None
    output_base64: dict[str, str] | None = None
    outcome: Outcome | None = None
    """How it ended; from our own runners, as what follows is."""
    signal: I32 | None = None
    wall_s: float | None = None
    """From start to end of the command, on the clock of its box."""
    phases: dict[Phase, float] | None = None
    """Seconds that each phase took."""
    error: Text | None = None
    """Why it was no benchmark's own end."""


Results = tuple[IterationOutput, ...]
"""The iterations of a job in the order they ran; bounded by the message that carries them."""


class HostOutput(_Sparse):
    """What a job ran on, as our own runners tell it."""

    metalmark_version: Text
    verdict: Text
    """``measured``, or ``emulated``: then never to be compared with other machines."""
    sandbox: Text
    accelerator: Text
    """``kvm``, ``native`` or ``tcg``."""
    reason: Text | None = None
    """Why this sandbox was chosen."""
    kernel: Text | None = None
    """Release of the kernel that the benchmark saw."""
    cpus: tuple[int, ...] | None = None
    helper_cpus: tuple[int, ...] | None = None
    details: dict[str, str] | None = None
    """Versions and choices of the sandbox."""
    warnings: tuple[Text, ...] | None = None


class JobOutput(_Sparse):
    """The document that is stored for a job that has run; ``error`` is there when it failed."""

    results: Results
    error: Text | None = None
    host: HostOutput | None = None
    phases: dict[Phase, float] | None = None
    """Seconds of what happens once a job: ``pull`` and ``rootfs``."""
