"""Output of jobs on the wire: how far an upload is, and the events of a stream."""

from __future__ import annotations

from typing import Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer

from metalmark.wire.scalars import Body, Text


class UploadBody(Body):
    """How far an upload is. ``complete`` says that it was checked and is stored."""

    offset: int
    """Bytes that have arrived."""
    complete: bool


class OutputEvent(Body):
    """The data of an ``output`` event: what an iteration printed, as text, or as Base64 where it is none."""

    iteration: int
    stream: Literal["stdout", "stderr"]
    text: Text | None = None
    base64: Text | None = None

    @model_serializer(mode="wrap")
    def _leave_out_nothing(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        return {name: value for name, value in handler(self).items() if value is not None}


class PhaseEvent(Body):
    """The data of a ``phase`` event: the job entered a phase."""

    phase: Text
    iteration: int | None = None
    """Which iteration it is of, 0 before the first; null when the runner does not tell."""
    status: Text


class EndEvent(Body):
    """The data of the ``end`` event: the status of the job when the stream ended."""

    status: Text
    phase: Text | None = None
