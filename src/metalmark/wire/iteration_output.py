"""What one iteration of a job printed and left behind, and the document in which a job's output is kept."""

from __future__ import annotations

from pydantic import ConfigDict, SerializerFunctionWrapHandler, model_serializer

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


Results = tuple[IterationOutput, ...]
"""The iterations of a job in the order they ran; bounded by the message that carries them."""


class JobOutput(_Sparse):
    """The document that is stored for a job that has run; ``error`` is there when it failed."""

    results: Results
    error: Text | None = None
