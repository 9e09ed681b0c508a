"""What one iteration of a job printed and left behind, and the document in which a job's output is kept."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from metalmark.model import Outcome, Phase
from metalmark.wire.scalars import I32, U32, Body, Text


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


class IterationEnd(_Sparse):
    """How one iteration ended, without anything that it printed or left."""

    iteration: U32
    """From 1 on."""
    exit_code: I32
    outcome: Outcome | None = None
    wall_s: float | None = None


ITERATION_ENDS_MAX = 1000
IterationEnds = Annotated[tuple[IterationEnd, ...], Field(max_length=ITERATION_ENDS_MAX)]
"""Of a job with more iterations they are the first, and for the last of them the first of the others that failed."""


def some_ends(ends: Iterable[IterationEnd]) -> tuple[IterationEnd, ...]:
    """Return as many ends of iterations as are kept of a job."""
    found = tuple(ends)
    if len(found) <= ITERATION_ENDS_MAX:
        return found
    first, others = found[: ITERATION_ENDS_MAX - 1], found[ITERATION_ENDS_MAX - 1 :]
    return (*first, next((end for end in others if end.exit_code), others[0]))


def ends_of(results: Results) -> tuple[IterationEnd, ...]:
    """Return how iterations ended, of their outputs; as many as are kept of a job."""
    return some_ends(
        IterationEnd(iteration=number, exit_code=result.exit_code, outcome=result.outcome, wall_s=result.wall_s)
        for number, result in enumerate(results, 1)
    )


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
